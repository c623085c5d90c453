"""Tables that studies add to the board. The board is below the studies, so it finds them by entry
point."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TypeAlias

from equivbench.report.table import Table

GROUP = "equivbench.board_tables"
StudyTable: TypeAlias = Callable[[Path], Table | None]
"""What an entry point of the group names: it makes the table of a results folder, or says with None
that the folder has nothing of the kind."""


def study_tables(results: Path) -> list[Table]:
    """The tables that the studies make of the folder ``results``, in the order of their names.

    Only the entry points of equivbench itself count: a board loads nobody else's code.
    """
    try:
        declared = distribution("equivbench").entry_points.select(group=GROUP)
    except PackageNotFoundError:  # run from a folder that was never installed
        return []
    makers: list[StudyTable] = [each.load() for each in sorted(declared, key=lambda one: one.name)]
    return [table for make in makers if (table := make(results)) is not None]
