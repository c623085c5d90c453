"""The boards as CSV, JSON and LaTeX: the same rows, numbers and ranks in each, and in the formats
that show a whole publication."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import astuple, fields, replace

import msgspec

from equivbench.errors import unknown_name
from equivbench.report import render
from equivbench.report.board import LEVEL, Board, BoardSetting, Row
from equivbench.report.provenance import Provenance
from equivbench.report.table import Column, Table
from equivbench.report.text import loss_in, number_text

SHORT = 12
"""Characters of a digest or commit that a person reads; json and csv have all."""
PAGE, DOCUMENT = "html", "md"
"""The formats that show a whole publication: :func:`equivbench.report.html.page.to_html` and
:func:`equivbench.report.sections.to_markdown_page`."""


HEADINGS = {
    "total": "loss",
    "total_low": "low",
    "total_high": "high",
    "share": "share annealed",
    "share_raw": "share raw",
    "share_ema": "share EMA",
    "over_best_untrained": "over best untrained",
    "samples_per_second": "samples/s",
    "samples_per_second_all_in": "samples/s all-in",
    "compile_seconds": "compile s",
}
_SAME = ("rank", "pair", "arm", "kernels", "setup", "day", "commit")
_TEXTS = (*_SAME[1:], "model", "status", "note")
COLUMNS = tuple(
    Column(
        field.name,
        "text" if field.name in _TEXTS else "number",
        HEADINGS.get(field.name, ""),
        key=field.name in _SAME[1:],
    )
    for field in fields(Row)
    if field.name not in ("beside", "unfinished", "provenance")
)
"""What a table shows of a row, by its fields; where the row comes from goes below the table."""
SETTING = tuple(Column(field.name, key=True) for field in fields(BoardSetting))
SOURCES = tuple(Column(field.name) for field in fields(Provenance))
"""The last columns of a sheet, several values of one row joined by semicolons."""

PREAMBLE = (
    "% Needs \\usepackage{booktabs} in the preamble; the tables are wide: landscape pages, or "
    "\\tiny in place of \\scriptsize.\n"
)
_MOST_COLUMNS = 12
"""Of one table in LaTeX."""
_RESULTS = ("total", "total_low", "total_high", "share", "share_raw", "share_ema", "floor")
_COUNTS = (
    "explained",
    "over_best_untrained",
    "samples_per_second",
    "samples_per_second_all_in",
    "compile_seconds",
    "epochs",
    "seeds",
)
TABULARS = (
    (*_SAME, "model", *_RESULTS, "status", "note"),
    (*_SAME, "parameters", *_COUNTS, "finished", "diverged"),
)
"""What stands side by side in LaTeX: each board makes two tables on top of each other, rows in the
same order."""


def board_table(board: Board) -> Table:
    """Make the table of one board: the setting above it, the commands that made the rows below."""
    return Table(
        setting_text(board.setting),
        COLUMNS,
        [[getattr(row, column.name) for column in COLUMNS] for row in board.rows],
        notes=remarks(board),
        caption=summary(board),
    )


def sheet(boards: Sequence[Board]) -> Table:
    """Make one table of all rows, their settings in front and their provenance behind."""
    columns = (*SETTING, Column("unit"), *COLUMNS, Column("beside"), Column("unfinished"), *SOURCES)
    rows = [
        [
            *astuple(board.setting),
            board.unit,
            *(getattr(row, column.name) for column in COLUMNS),
            beside(row),
            row.unfinished,
            *astuple(row.provenance),
        ]
        for board in boards
        for row in board.rows
    ]
    return Table("", columns, rows)


def setting_text(setting: BoardSetting) -> str:
    """Task, preset, data set, budget, variant and machine."""
    size = f"{setting.preset} on {setting.dataset}"
    parts = (setting.task, size, setting.budget, setting.variant, setting.machine_key)
    return ", ".join(part for part in parts if part)


def data_text(setting: BoardSetting) -> str:
    """What else is the same of all rows: data, test group and rules."""
    digest = setting.dataset_sha256[:SHORT]
    return (
        f"Data {setting.dataset} {setting.dataset_version} (SHA-256 {digest}), "
        f"test group {setting.group or 'unknown'}, rules {setting.rules_version}"
    )


def summary(board: Board) -> str:
    """What else the rows share, and what the first number of each is."""
    return (
        f"{data_text(board.setting)}; {loss_in(board.unit)}, of the annealed weights, "
        f"low and high its {LEVEL:.0%} interval over seeds; raw and EMA are the weights, and their "
        "average, where the cooldown begins."
    )


def remarks(board: Board) -> list[str]:
    """Below the table: the command behind every row, once for rows that share it, what else was
    measured, and why seeds have no result."""
    together: dict[Provenance, list[Row]] = defaultdict(list)
    for row in board.rows:
        together[replace(row.provenance, run_ids=(), packages=())].append(row)
    lines = [
        f"{', '.join(map(_name, rows))}: {_source(source)}" for source, rows in together.items()
    ]
    lines += [f"{_name(row)}, also: {'; '.join(beside(row))}" for row in board.rows if row.beside]
    return lines + [f"{_name(row)}, {why}" for row in board.rows for why in row.unfinished]


def beside(row: Row) -> tuple[str, ...]:
    """What else was measured, as texts: ``energy error 2.84``."""
    return tuple(f"{name} {number_text(value)}" for name, value in row.beside.items())


def _name(row: Row) -> str:
    return f"{row.pair} {row.arm} ({row.setup}, {row.day})"


def _source(source: Provenance) -> str:
    short = (each[:SHORT] + "-dirty" * each.endswith("-dirty") for each in source.commits)
    commits = ", ".join(short) or "none, an installed package"
    when = source.first if source.first == source.last else f"{source.first} to {source.last}"
    return f"{'; '.join(source.commands)} (commit {commits}; {when}; {source.device})"


def to_json(boards: Sequence[Board]) -> str:
    """A list of {setting, unit, rows}, each row with its provenance."""
    return _json_text(list(boards))


def _json_text(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def to_latex(boards: Sequence[Board]) -> str:
    """A fragment for ``\\input``: a table with the commands behind it for each setting."""
    tables = [render.to_latex(board_table(board), TABULARS) for board in boards]
    return "\n".join([PREAMBLE, *tables])


FORMATS: dict[str, Callable[[Sequence[Board]], str]] = {
    "csv": lambda boards: render.to_csv(sheet(boards)),
    "json": to_json,
    "latex": to_latex,
}
"""Formats of boards alone."""
ALL_FORMATS = (DOCUMENT, "csv", "json", PAGE, "latex")

BESIDE: dict[str, Callable[[Table], str]] = {
    "latex": lambda table: render.to_latex(table, _halves(table)),
}
"""Those of them that show tables of other kinds behind the boards."""

TABLES: dict[str, Callable[[Table], str]] = {
    DOCUMENT: render.to_markdown,
    "csv": render.to_csv,
    "json": lambda table: _json_text(render.to_json(table)),
    "latex": lambda table: PREAMBLE + BESIDE["latex"](table),
}
"""Formats of a table that is no board."""
OF_ROWS = ("csv", "json")
"""Those of them that hold rows of one kind, and so one table."""


def tables_to_text(name: str, tables: Sequence[Table]) -> str:
    """``tables``, one at least and in a format of rows no more, in the format of :data:`TABLES`
    called ``name``."""
    if name in BESIDE:
        return PREAMBLE + "\n".join(map(BESIDE[name], tables))
    return "\n".join(map(TABLES[name], tables))


def to_text(name: str, boards: Sequence[Board], beside: Sequence[Table] = ()) -> str:
    """``boards`` in the format of :data:`FORMATS` called ``name``, and behind them the tables
    ``beside``. A format that holds rows of one kind has the last of these, where there are no
    boards."""
    if name in BESIDE:
        return "\n".join(filter(None, [FORMATS[name](boards), *map(BESIDE[name], beside)]))
    return FORMATS[name](boards) if boards or not beside else TABLES[name](beside[-1])


def _halves(table: Table) -> Sequence[Sequence[str]]:
    """The columns of each of two tables on top of each other, where one would be too wide; what
    tells rows apart is in both."""
    columns = table.shown().columns
    keys = [each.name for each in columns if each.key]
    others = [each.name for each in columns if not each.key]
    if len(columns) <= _MOST_COLUMNS:
        return ()
    middle = (len(others) + 1) // 2
    return [*keys, *others[:middle]], [*keys, *others[middle:]]


def check_format(name: str) -> str:
    """``name``; raises ``UsageError`` for an unknown format."""
    if name not in ALL_FORMATS:
        raise unknown_name("format", name, ALL_FORMATS)
    return name
