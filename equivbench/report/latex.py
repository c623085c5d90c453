"""The board in LaTeX: a table a setting with booktabs' rules, to be read into a paper with
``\\input``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from equivbench.report.board import DIGITS, Board, Row
from equivbench.report.board_text import HEADERS, NUMBERS
from equivbench.report.text import printable

PREAMBLE = "% Needs \\usepackage{booktabs} in the preamble; the tables are wide: landscape pages, or \\tiny in place of \\scriptsize.\n"
RESULTS = (
    "rank",
    "pair",
    "arm",
    "model",
    "total",
    "total_low",
    "total_high",
    "share",
    "floor",
    "explained",
    "of_linear",
)
COUNTS = (
    "rank",
    "pair",
    "arm",
    "kernels",
    "setup",
    "parameters",
    "samples_per_second",
    "samples_per_second_all_in",
)
TABULARS = (
    (*RESULTS, "status", "note"),
    (*COUNTS, "compile_seconds", "epochs", "seeds", "finished", "diverged"),
)
"""What stands side by side: each board makes two tables on top of each other, rows in the same
order."""

_ESCAPES = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    '"': r"\char34{}",
    # A bracket would be read as an option of what stands before it.
    "[": "{[}",
    "]": "{]}",
}
_APART = re.compile(r"([-,])(?=\1)")
"""Two of them would make a dash or a quotation mark."""
_UNESCAPES = {**{latex: character for character, latex in _ESCAPES.items()}, "-{}": "-", ",{}": ","}
_KNOWN = re.compile(
    "|".join(re.escape(latex) for latex in sorted(_UNESCAPES, key=len, reverse=True))
    + r"|\{U\+([0-9A-F]+)\}"
)
_EXOTIC = re.compile(
    "[^ -~\u00c0-\u00cf\u00d1-\u00d6\u00d9-\u00dd\u00df-\u00ef\u00f1-\u00f6\u00f9-\u00fd\u00ff]"
)
"""All but ASCII and the letters that every LaTeX since 2018 sets whatever the font encoding."""


def latex_text(text: str) -> str:
    """``text`` as literal text; a character that not every LaTeX can set as ``{U+1F600}``. Inverse:
    :func:`from_latex_text`."""
    escaped = "".join(_ESCAPES.get(character, character) for character in printable(text))
    return _EXOTIC.sub(
        lambda found: f"{{U+{ord(found[0]):X}}}", _APART.sub(r"\1{}", escaped)
    ).strip()


def from_latex_text(latex: str) -> str:
    """The text that :func:`latex_text` wrote."""
    return _KNOWN.sub(
        lambda found: chr(int(found[1], 16)) if found[1] else _UNESCAPES[found[0]], latex.strip()
    )


def latex_number(value: float | None) -> str:
    """``$3.4721\\times10^{-14}$``; ``n/a`` for null."""
    if value is None:
        return "n/a"
    mantissa, _, exponent = (
        str(value) if isinstance(value, int) else f"{value:.{DIGITS}g}"
    ).partition("e")
    return f"${mantissa}\\times10^{{{int(exponent)}}}$" if exponent else f"${mantissa}$"


def from_latex_number(latex: str) -> float | None:
    """The number that :func:`latex_number` wrote."""
    return (
        None
        if latex == "n/a"
        else float(re.sub(r"\\times10\^\{(-?\d+)\}", r"e\1", latex.strip("$")))
    )


def board_table(board: Board, title: str, summary: str, remarks: Sequence[str]) -> str:
    """A ``table`` with the rows of ``board`` and ``remarks`` below; ``title`` and ``summary``,
    plain text, make the caption."""
    lines = [
        r"\begin{table}",
        rf"\caption{{{latex_text(f'{title}. {summary}')}}}",
        r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
    ]
    for columns in TABULARS:
        lines += [*_tabular(board.rows, columns), r"\par\smallskip"]
    # Commands are long words: ragged, and with an empty line in front of each.
    lines += [r"\raggedright", *(rf"\par {latex_text(remark)}" for remark in remarks)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _tabular(rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    sides = "".join("r" if column in NUMBERS else "l" for column in columns)
    return [
        rf"\begin{{tabular}}{{{sides}}}",
        r"\toprule",
        _line(latex_text(HEADERS.get(column, column)) for column in columns),
        r"\midrule",
        *(_line(_cell(getattr(row, column)) for column in columns) for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(value: str | float | None) -> str:
    return latex_text(value) if isinstance(value, str) else latex_number(value)
