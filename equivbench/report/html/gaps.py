"""What the page shows of the efficiency gaps: the columns of the terminal's table, with the two
ratios drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from equivbench.gap.efficiency import PairGap
from equivbench.gap.intervals import Quantity, Timed
from equivbench.report.gaps import (
    NEVER_TIED,
    gap_table,
    headline,
    reading,
    setting,
    slowdown_margin,
)
from equivbench.report.html.charts import axis, bar, ratio_scale
from equivbench.report.provenance import Provenance
from equivbench.report.publication import PublishedGap
from equivbench.report.render import cell_text, row_labels
from equivbench.report.table import Table
from equivbench.report.text import number_text, quantity_text


@dataclass(frozen=True)
class ShownGap:
    """A gap as the table shows it."""

    gap: PairGap
    unit: str
    label: str
    """What tells the row from others of its pair."""
    cells: dict[str, str]
    """The cells of the terminal's table, by the names of its columns."""
    ratio: Markup
    margin: Markup
    s_star: Quantity
    """Of the arm behind, steady; ``margin_value`` is how much slower the leader could be."""
    margin_value: float | None
    setting: str
    reading: str
    more: list[tuple[str, str]]
    """What else was measured, in words and numbers."""
    provenance: Provenance


@dataclass(frozen=True)
class GapTable:
    """The rows and the axes of the two drawn columns."""

    rows: list[ShownGap]
    ratio_axis: Markup
    margin_axis: Markup


def show_gaps(gaps: Sequence[PublishedGap]) -> GapTable:
    """The table of ``gaps``, each drawn column on one axis."""
    table = gap_table([one.gap for one in gaps])
    margins = [slowdown_margin(one.gap) for one in gaps]
    ratios, spare = ratio_scale(one.gap.loss_ratio for one in gaps), ratio_scale(margins)
    rows = [
        ShownGap(
            gap=one.gap,
            unit=one.unit,
            label=label,
            cells=cells,
            ratio=bar(one.gap.loss_ratio, ratios, lead=_side(one.gap.loss_ratio)),
            margin=bar(margin, spare, lead=_leader(one.gap)),
            s_star=_s_star(one.gap),
            margin_value=margin.value,
            setting=setting(one.gap),
            reading=reading(one.gap),
            more=_more(one.gap),
            provenance=one.provenance,
        )
        for one, margin, cells, label in zip(
            gaps, margins, _cells(table), row_labels(table, "pair"), strict=True
        )
    ]
    return GapTable(rows, axis(ratios), axis(spare))


def _cells(table: Table) -> list[dict[str, str]]:
    return [
        {
            column.name: cell_text(cell, column)
            for column, cell in zip(table.columns, row, strict=True)
        }
        for row in table.rows
    ]


def _s_star(gap: PairGap) -> Quantity:
    found = headline(gap)
    return Quantity() if found is None else found[1].steady


def _side(ratio: Quantity) -> str:
    """On which side of the tie the interval lies, if it decides."""
    if ratio.high is not None and ratio.high < 1:
        return "below"
    return "above" if ratio.low is not None and ratio.low > 1 else ""


def _leader(gap: PairGap) -> str:
    return {"augmented": "below", "equivariant": "above", None: ""}[gap.behind]


def _more(gap: PairGap) -> list[tuple[str, str]]:
    epochs = ", ".join(f"{arm} {number_text(value)}" for arm, value in gap.epochs.items())
    explained = ", ".join(
        f"{arm} {number_text(value)}" for arm, value in gap.explained.items() if value is not None
    )
    efficiency, speed = quantity_text(gap.sample_efficiency), quantity_text(gap.speed.steady)
    lead = f"{gap.lead.arm}: " if gap.lead.arm else "none claimed: "
    facts = [
        ("s* of the equivariant arm", _timed(gap.s_star_equivariant)),
        ("s* of the augmented arm", _timed(gap.s_star_augmented)),
        ("sample efficiency, times speed", f"{efficiency}, {speed} (equivariant arm)"),
    ]
    for n, twirl in gap.twirl.items():
        loss, cost = quantity_text(twirl.loss), quantity_text(twirl.cost)
        facts.append(
            (f"augmented arm averaged over {n} rotations", f"loss {loss}, {cost} times the cost")
        )
    facts += [
        ("explained variance", explained or "not measured"),
        ("epochs", epochs),
        ("lead", lead + gap.lead.reason),
        *(("note", note) for note in gap.notes),
    ]
    return facts + [(f"not measured: {name}", reason) for name, reason in gap.reasons.items()]


def _timed(quantity: Timed) -> str:
    steady = quantity_text(quantity.steady, why=NEVER_TIED)
    return f"{steady} steady, {quantity_text(quantity.all_in, why='')} with compilation counted"
