"""What every format says around a board's numbers, as plain text for it to escape: title, summary,
headers, remarks."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import fields

from equivbench.report.board import LEVEL, Board, Row, Setting
from equivbench.report.provenance import Provenance

SETTING = tuple(field.name for field in fields(Setting))
DETAILS = ("unfinished", "provenance")
COLUMNS = tuple(field.name for field in fields(Row) if field.name not in DETAILS)
"""What a table shows of a row; the rest goes below it."""
NUMBERS = frozenset(COLUMNS) - {"pair", "arm", "model", "kernels", "setup", "status", "note"}
SHORT = 12
"""Characters of a commit that a person reads; json and csv have all."""
HEADERS = {
    "total_low": "low",
    "total_high": "high",
    "of_linear": "of linear",
    "samples_per_second": "samples/s",
    "samples_per_second_all_in": "samples/s all-in",
    "compile_seconds": "compile s",
}
"""For the columns that are not headed by their own name."""


def title(setting: Setting) -> str:
    """Task, preset, budget, variant and machine."""
    variant = [setting.variant] if setting.variant else []
    return ", ".join([setting.task, setting.preset, setting.budget, *variant, setting.machine_key])


def summary(board: Board) -> str:
    """What else the rows share, and what the first number of each is."""
    setting = board.setting
    data = f"{setting.dataset} {setting.dataset_version} (SHA-256 {setting.dataset_sha256[:12]})"
    unit = board.unit or "the unit of the task"
    return (
        f"Data {data}, test group {setting.group or 'unknown'}, rules {setting.rules_version};"
        f" total in {unit}, low and high its {LEVEL:.0%} interval over seeds."
    )


def remarks(board: Board) -> list[str]:
    """Below the table: the command behind every row, once for rows that share it, and why seeds
    have no result."""
    together: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in board.rows:
        source = row.provenance
        together[source.commands, source.commits, source.first, source.last, source.device].append(
            row
        )
    lines = [
        f"{', '.join(map(_name, rows))}: {_source(rows[0].provenance)}"
        for rows in together.values()
    ]
    return lines + [f"{_name(row)}, {why}" for row in board.rows for why in row.unfinished]


def _name(row: Row) -> str:
    return f"{row.pair} {row.arm} ({row.setup})"


def _source(source: Provenance) -> str:
    commits = (
        ", ".join(
            commit[:SHORT] + "-dirty" * commit.endswith("-dirty") for commit in source.commits
        )
        or "none, an installed package"
    )
    when = source.first if source.first == source.last else f"{source.first} to {source.last}"
    return f"{'; '.join(source.commands)} (commit {commits}; {when}; {source.device})"
