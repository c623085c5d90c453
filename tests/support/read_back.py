"""Reads back what the renderers of tables wrote, so that tests can say that nothing was lost."""

from __future__ import annotations

import re

_LATEX = {
    **{f"\\{character}": character for character in "&%$#_{}"},
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"\textless{}": "<",
    r"\textgreater{}": ">",
    r"\textbar{}": "|",
    r"\textquotesingle{}": "'",
    r"\textasciigrave{}": "`",
    r"\char34{}": '"',
    "{[}": "[",
    "{]}": "]",
    "-{}": "-",
    ",{}": ",",
}
_LATEX_KNOWN = re.compile(
    "|".join(re.escape(latex) for latex in sorted(_LATEX, key=len, reverse=True))
    + r"|\{U\+([0-9A-F]+)\}"
)


def from_markdown(cell: str) -> str:
    """The text behind a cell of a Markdown table."""
    return re.sub(r"\\(.)", r"\1", cell.strip())


def from_csv(cell: str) -> str:
    """The text behind a cell of a sheet."""
    return cell.removeprefix("'")


def from_latex(latex: str) -> str:
    """The text behind a cell of a LaTeX table."""
    return _LATEX_KNOWN.sub(
        lambda found: chr(int(found[1], 16)) if found[1] else _LATEX[found[0]], latex.strip()
    )


def number_from_latex(latex: str) -> float | None:
    """The number behind a cell of a LaTeX table."""
    if latex == "n/a":
        return None
    return float(re.sub(r"\\times10\^\{(-?\d+)\}", r"e\1", latex.strip("$")))
