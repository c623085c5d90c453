"""Tables of what makes a share readable: each arm against the baselines, and the arms' shares at
the same loss."""

from __future__ import annotations

from collections.abc import Sequence

from equivbench.gap.intervals import Quantity
from equivbench.gap.matched import LossLevel, MatchedShares, ShareReading
from equivbench.report.table import Cell, Column, Missing, Table

END_COLUMNS = (
    Column("arm", key=True),
    Column("loss", "number", better="lower"),
    Column("of zero", "number", better="lower"),
    Column("of linear", "number", better="lower"),
    Column("explained", "number", better="higher"),
    Column("share at the end", "number", better="lower"),
    Column("seeds"),
)


def ends_table(shares: MatchedShares, title: str = "") -> Table:
    """Make the table of the arms' last evaluations: a row an arm, and one for each baseline."""
    rows: list[list[Cell]] = []
    for arm, end in shares.arms.items():
        seeds = f"{end.finished} of {end.seeds}"
        rows.append([arm, end.total, end.of_zero, end.of_linear, end.explained, end.share, seeds])
    zero, linear = shares.zero, shares.linear
    for name, loss in {"linear": linear, **shares.others, "zero": zero}.items():
        if loss is None:
            continue
        of_zero, explained = (loss / zero, 1 - loss / zero) if zero else (None, None)
        of_linear = loss / linear if linear else None
        rows.append([f"{name} baseline", loss, of_zero, of_linear, explained, "", ""])
    return Table(title, END_COLUMNS, rows)


def levels_table(levels: Sequence[LossLevel]) -> Table:
    """Make the table of the shares at common losses: a row for each loss, a column for each arm."""
    columns = [Column("share at", key=True), Column("loss", "number")]
    columns += [Column(arm, "number") for arm in (levels[0].arms if levels else {})]
    rows = [[level.name, level.loss, *map(share_read, level.arms.values())] for level in levels]
    return Table("", columns, rows)


def share_read(reading: ShareReading) -> Quantity | Missing:
    """The share with its interval, or why there is none."""
    if reading.share.value is not None:
        return reading.share
    if reading.reached == 0:
        return Missing("not reached")
    if reading.reached < reading.seeds:
        return Missing(f"reached by {reading.reached} of {reading.seeds} seeds only")
    if reading.began_below == reading.seeds:
        return Missing("passed before the first evaluation")
    count = f"{reading.began_below} of {reading.seeds}"
    return Missing(f"passed before the first evaluation by {count} seeds")
