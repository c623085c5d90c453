"""The table that ``run`` ends with: each arm's test error, symmetry error and speed, then the gap
in plain words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from equivbench.gap.efficiency import PairGap
from equivbench.records.schema import RunRecord
from equivbench.report.gaps import headline, reading, setting, show, turn_text

if TYPE_CHECKING:
    from rich.console import Console

COLUMNS = (
    "arm",
    "seeds",
    "loss",
    "explained",
    "share",
    "floor",
    "samples/s",
    "steps",
    "compile",
    "",
)
"""Narrow enough for 80 columns; the last holds what is wrong with a row, and goes where nothing
is."""


def print_summary(records: Sequence[RunRecord], gaps: Sequence[PairGap], console: Console) -> None:
    """Print a table per pair of ``records`` (means over finished seeds) and a paragraph per gap.

    Rows of an arm whose declared symmetry failed its measurement, or with diverged or unfinished
    seeds, say so.
    """
    from rich.table import Table
    from rich.text import Text

    for pair, rows in summary_rows(records).items():
        kept = [k for k, name in enumerate(COLUMNS) if name or any(row[k] for row in rows)]
        table = Table(
            title=Text(pair),
            title_justify="left",
            box=None,
            pad_edge=False,
            header_style="bold",
            padding=(0, 2, 0, 0),
        )
        for k in kept:
            table.add_column(
                COLUMNS[k],
                justify="left" if COLUMNS[k] in ("arm", "") else "right",
                overflow="fold",
            )
        for row in rows:
            table.add_row(*(Text(row[k]) for k in kept))
        console.print(table)
    for gap in gaps:
        console.print()
        console.print(Text.assemble((f"{gap.task}/{gap.pair}", "bold"), f"  {setting(gap)}"))
        for line in gap_lines(gap):
            console.print(Text(f"  {line}"))


def summary_rows(records: Sequence[RunRecord]) -> dict[str, list[tuple[str, ...]]]:
    """Rows under ``COLUMNS`` by ``task/pair``: one per preset, budget and arm, in the order of
    ``records``."""
    arms: dict[tuple[object, ...], list[RunRecord]] = defaultdict(list)
    for record in records:
        budget = (record.budget.kind, record.budget.limit)
        arms[
            record.task,
            record.pair,
            record.preset,
            budget,
            tuple(record.variant.items()),
            record.arm,
        ].append(record)
    tables: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for runs in arms.values():
        tables[f"{runs[0].task}/{runs[0].pair}"].append(_row(runs))
    return dict(tables)


def gap_lines(gap: PairGap) -> list[str]:
    """The paragraph on one gap: the reading, the figures behind it, and what to know about them."""
    lines = [reading(gap)]
    ratio, cost = show(gap.loss_ratio), show(gap.throughput_ratio.steady, interval=False)
    lines.append(
        f"loss equivariant/augmented {ratio}; seconds a sample equivariant/augmented {cost}"
    )
    found = headline(gap)
    if found is not None:
        arm, s_star = found
        lines.append(
            f"break-even speed-up of the {arm} arm: {show(s_star.steady)} steady, {show(s_star.all_in)} with compilation"
        )
        efficiency = (
            gap.sample_efficiency if arm == "equivariant" else gap.sample_efficiency_augmented
        )
        speed = (
            gap.speed.steady
            if arm == "equivariant"
            else gap.speed.steady.map(lambda value: 1 / value, falling=True)
        )
        lines.append(
            f"  = sample efficiency {show(efficiency, interval=False)} x speed {show(speed, interval=False)}"
        )
    for change in gap.lead_changes:
        hands = (
            "the lead changes hands"
            if change.decided
            else "the lead may change hands, the intervals do not decide it,"
        )
        lines.append(
            f"{hands} to the {change.to} arm at {turn_text(change.seconds)} of budget, loss {change.loss:.3g}"
        )
    lines += [f"note: {note}" for note in gap.notes]
    return lines


def _row(runs: Sequence[RunRecord]) -> tuple[str, ...]:
    first = runs[0]
    done = [run for run in runs if run.status == "completed" and run.final is not None]
    finals = [run.final for run in done if run.final is not None]
    return (
        first.arm if first.budget.extends is None else f"{first.arm}, extended",
        str(len(runs)) if len(done) == len(runs) else f"{len(done)} of {len(runs)}",
        _mean([final.total for final in finals], "{:.3g}"),
        _mean([final.explained for final in finals], "{:.1%}"),
        _mean([final.share for final in finals], "{:.1e}"),
        _mean([final.floor for final in finals], "{:.0e}"),
        _mean([run.throughput.samples_per_second for run in done], "{:.0f}"),
        _mean([float(run.steps) for run in done], "{:.0f}"),
        _mean([run.clock.compile for run in done], "{:.1f}s"),
        _flags(runs),
    )


def _flags(runs: Sequence[RunRecord]) -> str:
    flags = []
    if any(run.model.symmetry_verified is False for run in runs):
        flags.append(f"declared {runs[0].model.symmetry} symmetry NOT confirmed")
    flags += [f"seed {run.seed} {run.status}" for run in runs if run.status != "completed"]
    return "; ".join(flags)


def _mean(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return form.format(sum(known) / len(known)) if known else "-"
