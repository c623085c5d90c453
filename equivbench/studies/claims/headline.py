"""The headline: the efficiency gap per device-hour, by pair, machine and fraction of the training
data, and where the lead turns.

An hour is one of the whole machine that the machine key names (all its threads, or its GPU), and is
called by the device that it was measured on: an hour of a CPU says nothing about one of a GPU.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from equivbench.gap.efficiency import MeasuredGap, PairGap, measure_gaps
from equivbench.gap.leads import Course, LeadChange
from equivbench.gap.pairing import MatchedRuns
from equivbench.gap.power_laws import CurveScaling, fit_within_run
from equivbench.records.declared import PRECISION, effective_variant
from equivbench.records.evaluations import implied_baseline
from equivbench.records.schema import RunRecord
from equivbench.report.gaps import (
    OTHER,
    budget_text,
    headline,
    kernels_text,
    seeds_text,
    turn_text,
    variant_text,
)
from equivbench.report.table import Amount, Cell, Column, Table
from equivbench.report.text import percent_text, seconds_text
from equivbench.studies.claims.findings import Hardware, hardware_of

DATA = "data"
"""The sweep whose points are fractions of the training split."""
_SWEPT = ("sweep", "value")
"""What the variant of a point of a sweep has beside the options of the task."""


@dataclass(frozen=True)
class Headline:
    """One pair on one machine, trained on one fraction of the data.

    ``steady`` holds the loss ratio (equivariant over augmented) at every budget that both arms
    cover, compilation left out; None without step times. ``scaling`` is None with the reason in
    ``unfitted``.
    """

    gap: PairGap
    hardware: Hardware
    fraction: float | None
    """Of the training split, 1 where it was not cut; None where the record says something else than
    a number."""
    seconds: float | None
    """The longest budget that both arms cover; None without step times."""
    baseline: float | None
    """The loss that ``explained`` is relative to."""
    steady: Course | None
    scaling: CurveScaling | None
    unfitted: str | None

    @property
    def unit(self) -> str:
        """What kind of hours these are."""
        return f"{self.hardware}-hours"

    def hours(self, seconds: float | None) -> Amount | None:
        """``seconds`` in hours of the device."""
        return None if seconds is None else Amount(seconds / 3600, f"{self.hardware}-h")

    def explained(self, change: LeadChange) -> float | None:
        """How much of the signal both arms explain where the lead changes: near or below 0 it says
        little."""
        return None if self.baseline is None else 1 - change.loss / self.baseline


def make_headline(records: Sequence[RunRecord]) -> list[Headline]:
    """A headline for each gap of a pair as declared or of a data sweep, sorted by pair, machine and
    fraction.

    Sweeps over anything else (sizes, optimisers) and other precisions change the arms or their
    recipes and take no part.
    What differs in preset, data, budget, switches, kernels or rules stays apart, as in
    :func:`equivbench.gap.efficiency.efficiency_gap`.
    """
    taking_part = [
        record
        for record in records
        if record.variant.get("sweep", DATA) == DATA and PRECISION not in effective_variant(record)
    ]
    return sorted((_headline(each) for each in measure_gaps(taking_part)), key=_order)


def telling_headlines(headlines: Sequence[Headline]) -> list[Headline]:
    """Of the campaigns of each pair on its kernel backends under one setting the one that counts
    (:attr:`equivbench.gap.efficiency.PairGap.precedence`), in order."""
    alike: dict[str, list[Headline]] = defaultdict(list)
    for each in headlines:
        alike[_setting_of(each.gap)].append(each)
    return [max(own, key=lambda each: each.gap.precedence) for own in alike.values()]


def _setting_of(gap: PairGap) -> str:
    where = (gap.task, gap.pair, gap.preset, gap.machine_key, gap.rules_version)
    data = (gap.dataset["name"], gap.dataset["sha256"], sorted(gap.dataset["sizes"].items()))
    how = (sorted(gap.budget.items()), sorted(gap.variant.items()), sorted(gap.kernels.items()))
    return repr((where, data, how))


_KEYS = (
    Column("pair", key=True),
    Column("kernels", key=True),
    Column("preset", key=True),
    Column("options", key=True, show="filled"),
    Column("hardware", key=True),
    Column("data", key=True),
    Column("part", heading="part of the data", key=True, show="needed"),
    Column("commit", key=True, show="needed"),
    Column("day", key=True, show="needed"),
)
"""What tells the rows of all tables apart."""


def headline_table(headlines: Sequence[Headline]) -> Table:
    """A row for each headline.

    Where there is no verdict, what the estimate says is in brackets with a question mark.
    """
    columns = (
        *_KEYS,
        Column("budget", key=True),
        Column("device-hours"),
        Column("loss ratio", kind="number"),
        Column("ahead"),
        Column("s* of the other", kind="number"),
        Column("lead changes at"),
        Column("seeds"),
    )
    rows = []
    for each in headlines:
        gap, found = each.gap, headline(each.gap)
        rows.append(
            (
                *_key_cells(each),
                budget_text(gap),
                each.hours(each.seconds),
                gap.loss_ratio,
                None if found is None else _ahead(gap, OTHER[found[0]]),
                None if found is None else found[1].steady,
                changes_text(each),
                seeds_text(gap.n_seeds - gap.n_diverged, gap.n_seeds),
            )
        )
    return Table("", columns, rows)


def budget_table(headlines: Sequence[Headline]) -> Table:
    """The loss ratio of each headline at the budgets of the rungs, shortest first.

    The arm ahead is the one that the interval at that budget says, in brackets because it is no
    claimed lead. Headlines without step times are left out.
    """
    columns = (
        *_KEYS,
        Column("budget", kind="seconds", digits=2, key=True),
        Column("device-hours"),
        Column("loss ratio", kind="number"),
        Column("ahead"),
    )
    rows = []
    for each in headlines:
        if each.steady is None:
            continue
        for seconds, ratio in zip(each.steady.seconds, each.steady.ratio, strict=True):
            ahead = each.steady.ahead(seconds)
            leader = "not decided" if ahead is None else f"({ahead})"
            rows.append((*_key_cells(each), seconds, each.hours(seconds), ratio, leader))
    return Table("", columns, rows)


def changes_text(each: Headline) -> str:
    """``12 s (9.0 s to 17 s) to equivariant, 31% explained; ...``: the budgets at which the lead
    changes hands, with ``?`` unless the intervals decide it."""
    if each.steady is None or not each.steady.seconds:
        return "-"
    first, last = each.steady.seconds[0], each.steady.seconds[-1]
    if not each.steady.changes:
        return f"never from {seconds_text(first, 2)} to {seconds_text(last, 2)}"
    texts = []
    for change in each.steady.changes:
        text, explained = f"{turn_text(change.seconds)} to {change.to}", each.explained(change)
        texts.append(
            text if explained is None else f"{text}, {percent_text(explained, 2)} explained"
        )
    return "; ".join(texts)


def scaling_table(headlines: Sequence[Headline]) -> Table:
    """The exponents of both arms' losses over the rungs of the last decade of each budget; where
    there are none, why."""
    columns = (
        *_KEYS,
        Column("budget", key=True),
        Column("from", kind="seconds", digits=2),
        Column("to", kind="seconds", digits=2),
        Column("equivariant", kind="number", digits=2),
        Column("augmented", kind="number", digits=2),
        Column("why not", show="filled", wraps=True),
    )
    rows = []
    for each in headlines:
        fits = each.scaling
        found: tuple[Cell, ...] = (None,) * 4
        if fits is not None:
            found = (fits.since, fits.until, fits.equivariant, fits.augmented)
        rows.append((*_key_cells(each), budget_text(each.gap), *found, each.unfitted))
    return Table("", columns, rows)


def _headline(weighed: MeasuredGap) -> Headline:
    gap, course = weighed.gap, weighed.course
    fits = fit_within_run(weighed.runs)
    seconds = gap.budget["limit"] if gap.budget["kind"] == "seconds" else None
    return Headline(
        gap=gap,
        hardware=hardware_of(weighed.runs.equivariant[0].record.environment),
        fraction=_fraction(gap.variant),
        seconds=course.seconds[-1] if course is not None and course.seconds else seconds,
        baseline=_baseline(weighed.runs),
        steady=course,
        scaling=None if isinstance(fits, str) else fits,
        unfitted=fits if isinstance(fits, str) else None,
    )


def _fraction(variant: dict[str, str]) -> float | None:
    if variant.get("sweep") != DATA:
        return 1.0
    try:
        fraction = float(variant["value"])
    except (KeyError, ValueError):
        return None
    return fraction if 0 < fraction <= 1 else None


def _baseline(comparison: MatchedRuns) -> float | None:
    """The board metric that explained signal is relative to."""
    for run in (*comparison.equivariant, *comparison.augmented):
        implied = None if run.record.final is None else implied_baseline(run.record.final)
        if implied is not None:
            return implied
    return None


def _order(each: Headline) -> tuple[object, ...]:
    gap = each.gap
    return (
        gap.task,
        gap.pair,
        each.hardware,
        gap.machine_key,
        gap.preset,
        repr(gap.dataset["name"]),
        gap.rules_version,
        -(each.fraction or 0.0),
        gap.budget["kind"],
        gap.budget["limit"],
        repr(gap.kernels),
        gap.day,
        gap.commit or "",
    )


def _key_cells(each: Headline) -> tuple[Cell, ...]:
    gap = each.gap
    options = {name: value for name, value in gap.variant.items() if name not in _SWEPT}
    return (
        f"{gap.task}/{gap.pair}",
        kernels_text(gap),
        gap.preset,
        variant_text(options),
        f"{gap.machine_key} ({each.hardware})",
        gap.dataset["name"],
        None if each.fraction is None else f"{each.fraction:.3g}",
        (gap.commit or "")[:12],
        gap.day,
    )


def _ahead(gap: PairGap, leader: str) -> str:
    """``equivariant`` for a claimed lead, ``(equivariant?)`` for the estimate."""
    return leader if gap.behind is not None else f"({leader}?)"
