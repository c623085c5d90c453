"""The rules as HTML. They are our own text in a few Markdown forms: headings, numbered lines,
paragraphs and code."""

from __future__ import annotations

import re
from importlib.resources import files

from markupsafe import Markup, escape

from equivbench.report.text import printable

NUMBERED = re.compile(r"\d+\. ")


def rules() -> Markup:
    """The rules of the installed package (records/rules.md), headings from the fourth level on."""
    return markup(files("equivbench.records").joinpath("rules.md").read_text(encoding="utf-8"))


def markup(text: str) -> Markup:
    """``text`` as HTML: ``#`` and ``##`` headings, lists of lines ``1. ...``, ```code```; every
    other line is a paragraph."""
    blocks: list[Markup] = []
    items: list[Markup] = []
    for line in [*text.splitlines(), ""]:
        numbered = NUMBERED.match(line)
        if numbered:
            items.append(Markup("<li>{}</li>").format(code(line[numbered.end() :])))
            continue
        if items:
            blocks.append(Markup("<ol>{}</ol>").format(Markup("").join(items)))
            items = []
        if line.startswith("#"):
            blocks.append(Markup("<h4>{}</h4>").format(line.lstrip("# ")))
        elif line.strip():
            blocks.append(Markup("<p>{}</p>").format(code(line)))
    return Markup("\n").join(blocks)


def code(line: str) -> Markup:
    """``line``, escaped, with what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(printable(line)))))
