"""The symmetry decomposition of a model as a table: a row for all samples, one for each part."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from equivbench.counted import counted
from equivbench.gap.intervals import Quantity
from equivbench.report.table import Column, Table
from equivbench.report.text import number_text, percent_text
from equivbench.report.words import FLOOR, with_legend

if TYPE_CHECKING:
    from equivbench.measure.measurement import Measurement, Part
    from equivbench.symmetry.decomposition import Decomposition

HOLDS = {True: "holds", False: "DOES NOT HOLD", None: "is NOT DECIDED"}
"""How a verdict is written."""


def explained_text(explained: float) -> str:
    """The part of the target that a model explains, or how much worse than no prediction it is."""
    if not explained < 0:
        return f"explained {percent_text(explained)}"
    return f"its loss is {number_text(1 - explained)} times that of predicting nothing"


def measurement_table(measured: Measurement) -> Table:
    """Make the table of ``measured``, in the unit of its task; layers have units of their own."""
    from equivbench.measure.layers import LayerPart

    layers = any(isinstance(part, LayerPart) for part in measured.by.values())
    total = Column("total", "number", heading="loss", unit=measured.unit, digits=4)
    columns = [
        Column("layer" if layers else "rows", key=True),
        Column("total", "number", heading="variance", digits=4) if layers else total,
        Column("twirled", "number", digits=4),
        Column("equivariance", "number", digits=4),
        Column("share", "number", digits=4),
        Column("type") if layers else FLOOR,
    ]
    parts: dict[str, Part] = {}
    if not layers:
        sides = {"by rotations": measured.proper, "by reflections": measured.parity}
        parts = {
            "all": measured,
            **{name: side for name, side in sides.items() if side is not None},
        }
    rows = []
    for label, part in {**parts, **measured.by}.items():
        low, high = (end if math.isfinite(end) else None for end in part.interval())
        share = Quantity(part.share, low, high) if math.isfinite(part.share) else None
        last = (part.symmetry or "none fits") if isinstance(part, LayerPart) else part.floor
        rows.append((label, part.total, part.twirled, part.equivariance, share, last))
    return with_legend(Table("", columns, rows))


def remarks(measured: Measurement) -> list[str]:
    """What is to be said beside the table, of further outputs, a quadrature and layers."""
    from equivbench.measure.layers import LayerPart, summary

    said = []
    for name, part in measured.beside.items():
        low, high = part.interval()
        unit = f" {part.unit}" if part.unit != "1" else ""
        between = f" ({number_text(low)} to {number_text(high)})" if math.isfinite(low) else ""
        said.append(
            f"{name} beside it: loss {number_text(part.total)}{unit}, "
            f"share {number_text(part.share)}{between}"
        )
    doubled = measured.doubled
    if doubled is not None:
        verb = "agrees with" if doubled.agrees else "DISAGREES with"
        more = "" if doubled.agrees else ": use a higher degree, or independent draws"
        said.append(
            f"the quadrature {verb} that of degree {doubled.degree}: the equivariance error of "
            f"{counted(doubled.samples, 'sample')} moves by {abs(doubled.change):.1e} of "
            f"itself{more}"
        )
    layers = {name: part for name, part in measured.by.items() if isinstance(part, LayerPart)}
    if layers:
        said.append(summary(layers))
    return said


def decomposition_table(errors: Decomposition) -> Table:
    """Make the table of ``errors``, a row a prediction, with the share of them all below."""
    columns = [
        Column("row", key=True),
        Column("group"),
        *(Column(name, "number", digits=4) for name in ("total", "twirled", "equivariance")),
    ]
    parts = (errors.groups, errors.total, errors.twirled, errors.equivariance)
    values = zip(*(part.detach().tolist() for part in parts), strict=True)
    low, high = errors.interval()
    interval = f" ({number_text(low)} to {number_text(high)})" if math.isfinite(low) else ""
    note = f"share of all rows: {number_text(errors.share)}{interval}"
    return Table("", columns, [(row, *each) for row, each in enumerate(values)], [note])


def measurement_page(measured: Measurement) -> Table:
    """The same with what it says below the rows, for a notebook."""
    table = measurement_table(measured)
    notes = [
        f"{counted(measured.samples, 'sample')}, "
        f"{counted(measured.rotations, 'rotation')} of {measured.group} each; "
        f"explained {percent_text(measured.explained)}"
    ]
    if measured.verdict is not None:
        notes.append(f"symmetry {HOLDS[measured.verdict.holds]}: {measured.verdict.reason}")
    return replace(table, notes=[*notes, *remarks(measured), *table.notes])
