"""The board as Markdown, CSV, JSON and LaTeX: the same rows, numbers and ranks in each."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, fields

import msgspec

from equivbench.errors import unknown_name
from equivbench.report.board import DIGITS, Board, Row
from equivbench.report.board_text import COLUMNS, HEADERS, NUMBERS, SETTING, remarks, summary, title
from equivbench.report.latex import PREAMBLE, board_table
from equivbench.report.provenance import Provenance
from equivbench.report.text import csv_cell, markdown_cell

Value = str | int | float | None
SOURCES = tuple(field.name for field in fields(Provenance))
"""The last columns of a sheet, several values of one row joined by semicolons."""
PAGE = "html"
"""The format that needs more than the boards: :func:`equivbench.report.html.page.to_html` of a
whole publication."""


def check_format(name: str) -> str:
    """``name``; raises ``UsageError`` for an unknown format."""
    if name not in FORMATS and name != PAGE:
        raise unknown_name("format", name, [*FORMATS, PAGE])
    return name


def to_json(boards: Sequence[Board]) -> str:
    """A list of {setting, unit, rows}, each row with its provenance."""
    return msgspec.json.format(msgspec.json.encode(list(boards)), indent=2).decode() + "\n"


def to_csv(boards: Sequence[Board]) -> str:
    """One line a row, its setting repeated in front and its provenance behind; an empty cell is
    null."""
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    writer.writerow([*SETTING, "unit", *COLUMNS, "unfinished", *SOURCES])
    for board in boards:
        for row in board.rows:
            details = [_joined(row.unfinished), *map(_joined, astuple(row.provenance))]
            values = [*astuple(board.setting), board.unit, *_values(row), *details]
            writer.writerow([_cell(value, csv_cell, null="") for value in values])
    return sheet.getvalue()


def to_markdown(boards: Sequence[Board]) -> str:
    """A heading, a table and the commands behind it for each setting."""
    return "\n".join(map(_section, boards))


def to_latex(boards: Sequence[Board]) -> str:
    """A fragment for ``\\input``: a table with the commands behind it for each setting."""
    return "\n".join(
        [
            PREAMBLE,
            *(
                board_table(board, title(board.setting), summary(board), remarks(board))
                for board in boards
            ),
        ]
    )


def _section(board: Board) -> str:
    lines = [
        f"### {markdown_cell(title(board.setting))}",
        "",
        markdown_cell(summary(board)),
        "",
        _line(HEADERS.get(column, column) for column in COLUMNS),
        _line("---:" if column in NUMBERS else "---" for column in COLUMNS),
        *(
            _line(_cell(value, markdown_cell, null="n/a") for value in _values(row))
            for row in board.rows
        ),
        "",
        *(f"- {markdown_cell(remark)}" for remark in remarks(board)),
    ]
    return "\n".join(lines) + "\n"


def _values(row: Row) -> list[Value]:
    """Those of ``COLUMNS``."""
    return [getattr(row, column) for column in COLUMNS]


def _joined(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else "; ".join(value)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Value, escape: Callable[[str], str], *, null: str) -> str:
    if value is None:
        return null
    if isinstance(value, str):
        return escape(value)
    return str(value) if isinstance(value, int) else f"{value:.{DIGITS}g}"


FORMATS: dict[str, Callable[[Sequence[Board]], str]] = {
    "md": to_markdown,
    "csv": to_csv,
    "json": to_json,
    "latex": to_latex,
}
