"""The page: one file that loads nothing, whose policy lets nothing but its own style sheet and
script run."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from equivbench.report.board import DIGITS, LEVEL
from equivbench.report.html.boards import AXES, show_boards, show_unit
from equivbench.report.html.gaps import show_gaps
from equivbench.report.html.kernels import show_kernels
from equivbench.report.publication import Publication
from equivbench.report.text import number_text, printable, quantity_text

NULL = "n/a"
POLICY = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'"

NUMBERED = re.compile(r"\d+\. ")


def to_html(publication: Publication) -> str:
    """``publication`` as one HTML document.

    Every name in it that came from records is escaped and stripped of control characters, and the
    content security policy allows the page's own style sheet and script by their hashes and nothing
    else: no network, no other script.
    """
    style, script = _asset("board.css"), _asset("board.js")
    boards = show_boards(publication.boards, publication.curves)
    rows = [shown.row for board in boards for shown in board.rows]
    tasks: dict[str, list[Any]] = {}
    for board in boards:
        tasks.setdefault(board.setting.task, []).append(board)
    machines = {board.setting.machine_key for board in boards} | {
        clean(sample.environment.machine_key) for sample in publication.kernels
    }
    text: str = (
        _environment()
        .get_template("page.html")
        .render(
            style=style,
            script=script,
            policy=f"{POLICY}; style-src {_hash(style)}; script-src {_hash(script)}",
            tasks=tasks,
            machines=sorted(machines),
            axes=AXES,
            rows=rows,
            gaps=show_gaps(publication.gaps),
            left_out=publication.left_out,
            kernels=show_kernels(publication.kernels),
            level=f"{LEVEL:.0%}",
            rules=rules(),
            rules_versions=sorted({board.setting.rules_version for board in boards}),
        )
    )
    return text


def clean(text: str) -> str:
    """``text`` as the board has it: printable, without blanks round it."""
    return printable(text).strip()


def shown(value: float | int | None) -> str:
    """A number as every format of the board shows it."""
    return NULL if value is None else number_text(value, DIGITS)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("equivbench.report.html", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    filters: dict[str, Callable[..., Any]] = {
        "shown": shown,
        "quantity": quantity_text,
        "number": number_text,
        "clean": clean,
        "code": code,
        "unit": show_unit,
    }
    environment.filters.update(filters)
    return environment


def _printable(value: object) -> object:
    """Whatever a template prints, without control characters unless it is markup of our own."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _asset(name: str) -> Markup:
    """A file of this package that goes into the page as it is."""
    return Markup(
        files("equivbench.report.html").joinpath("assets", name).read_text(encoding="utf-8")
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


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
