"""The symmetry decomposition of a model as a table: a row for all samples, one for each part."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from equivbench.gap.intervals import Quantity
from equivbench.report.table import Column, Table
from equivbench.report.text import percent_text
from equivbench.report.words import FLOOR, with_legend

if TYPE_CHECKING:
    from equivbench.measure.measurement import Measurement

HOLDS = {True: "holds", False: "DOES NOT HOLD", None: "is NOT DECIDED"}
"""How a verdict is written."""


def measurement_table(measured: Measurement) -> Table:
    """Make the table of ``measured``, in the unit of its task."""
    columns = [
        Column("rows", key=True),
        Column("total", "number", heading="loss", unit=measured.unit, digits=4),
        Column("twirled", "number", digits=4),
        Column("equivariance", "number", digits=4),
        Column("share", "number", digits=4),
        FLOOR,
    ]
    rows = []
    for label, part in {"all": measured, **measured.by}.items():
        low, high = (end if math.isfinite(end) else None for end in part.interval())
        share = Quantity(part.share, low, high) if math.isfinite(part.share) else None
        rows.append((label, part.total, part.twirled, part.equivariance, share, part.floor))
    return with_legend(Table("", columns, rows))


def measurement_page(measured: Measurement) -> Table:
    """The same with what it says below the rows, for a notebook."""
    table = measurement_table(measured)
    notes = [
        f"{measured.samples} samples, {measured.rotations} rotations of {measured.group} each; "
        f"explained {percent_text(measured.explained)}"
    ]
    if measured.verdict is not None:
        notes.append(f"symmetry {HOLDS[measured.verdict.holds]}: {measured.verdict.reason}")
    return replace(table, notes=[*notes, *table.notes])
