"""The board as Markdown, CSV and JSON: the same rows, numbers and ranks in each."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields

import msgspec

from equivbench.errors import UsageError, unknown_name
from equivbench.reporting.board import DIGITS, LEVEL, Board, Row, Setting
from equivbench.reporting.text import csv_cell, markdown_cell

SETTING = tuple(field.name for field in fields(Setting))
DETAILS = ("unfinished", "provenance")
COLUMNS = tuple(field.name for field in fields(Row) if field.name not in DETAILS)
"""What a table shows of a row; the rest goes below it."""
Value = str | int | float | None


def check_format(name: str) -> str:
    """``name``; raises ``UsageError`` for an unknown format or one that is only planned."""
    if name in PLANNED:
        raise UsageError(f"the format {name} is planned and not built yet; use {', '.join(FORMATS)}")
    if name not in FORMATS:
        raise unknown_name("format", name, [*FORMATS, *PLANNED])
    return name


def render(boards: Sequence[Board], name: str) -> str:
    """``boards`` in the format ``name``; raises ``UsageError`` as :func:`check_format` does."""
    return FORMATS[check_format(name)](boards)


def to_json(boards: Sequence[Board]) -> str:
    """A list of {setting, unit, rows}."""
    plain = [{"setting": asdict(board.setting), "unit": board.unit, "rows": list(map(asdict, board.rows))} for board in boards]
    return msgspec.json.format(msgspec.json.encode(plain), indent=2).decode() + "\n"


def to_csv(boards: Sequence[Board]) -> str:
    """One line a row, its setting repeated in front; an empty cell is null."""
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    writer.writerow([*SETTING, "unit", *COLUMNS])
    for board in boards:
        for row in board.rows:
            values = [*asdict(board.setting).values(), board.unit, *_values(row)]
            writer.writerow([_cell(value, csv_cell, null="") for value in values])
    return sheet.getvalue()


def to_markdown(boards: Sequence[Board]) -> str:
    """A heading and a table for each setting."""
    return "\n".join(map(_section, boards))


def _section(board: Board) -> str:
    setting = board.setting
    heading = [setting.task, setting.preset, setting.budget, *([setting.variant] if setting.variant else []), setting.machine_key]
    lines = [
        f"### {markdown_cell(', '.join(heading))}",
        "",
        f"Data {markdown_cell(setting.dataset)} {markdown_cell(setting.dataset_version)}"
        f" (SHA-256 {markdown_cell(setting.dataset_sha256[:12])}), test group {markdown_cell(setting.group or 'unknown')},"
        f" rules {setting.rules_version}. `total` in {markdown_cell(board.unit or 'the unit of the task')},"
        f" with its {LEVEL:.0%} interval over seeds.",
        "",
        _line(HEADERS.get(column, column) for column in COLUMNS),
        _line("---:" if column in NUMBERS else "---" for column in COLUMNS),
    ]
    lines += [_line(_cell(value, markdown_cell, null="n/a") for value in _values(row)) for row in board.rows]
    return "\n".join(lines) + "\n"


def _values(row: Row) -> list[Value]:
    """Those of ``COLUMNS``."""
    return [getattr(row, column) for column in COLUMNS]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Value, escape: Callable[[str], str], *, null: str) -> str:
    if value is None:
        return null
    if isinstance(value, str):
        return escape(value)
    return str(value) if isinstance(value, int) else f"{value:.{DIGITS}g}"


HEADERS = {
    "total_low": "low",
    "total_high": "high",
    "of_linear": "of linear",
    "samples_per_second": "samples/s",
    "samples_per_second_all_in": "samples/s all-in",
    "compile_seconds": "compile s",
}
NUMBERS = frozenset(COLUMNS) - {"pair", "arm", "model", "kernels", "setup", "status", "note"}
FORMATS: dict[str, Callable[[Sequence[Board]], str]] = {"md": to_markdown, "csv": to_csv, "json": to_json}
PLANNED = ("html", "latex")
