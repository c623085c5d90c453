"""Tables of arms over their seeds: what ``run`` ends with, a sweep, and the arms against simple
predictors."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from equivbench.budget import Budget
from equivbench.gap.intervals import Quantity, over_seeds
from equivbench.gap.matched import LossLevel, MatchedShares, ShareReading
from equivbench.records.counting import counting_runs
from equivbench.records.curves import ResultWeights, common_curves, final_of
from equivbench.records.declared import effective_variant
from equivbench.records.disturbed import disturbance
from equivbench.records.schema import RunRecord, Test
from equivbench.report.board import finished_runs, unconfirmed
from equivbench.report.board import over_seeds as board_mean
from equivbench.report.gaps import seeds_text, variant_text
from equivbench.report.table import Cell, Column, Missing, Table
from equivbench.report.text import loss_in
from equivbench.report.words import (
    COMPILE,
    EXPLAINED,
    LOSS,
    OVER_BEST_UNTRAINED,
    SHARE,
    SHARE_EMA,
    SHARE_RAW,
    SPEED,
    with_legend,
)

SUMMARY_COLUMNS = (
    Column("arm", key=True),
    Column("preset", key=True, show="differs"),
    Column("budget", key=True, show="differs"),
    Column("variant", key=True, show="differs"),
    Column("kernels", key=True, show="needed"),
    Column("machine", key=True, show="differs"),
    Column("data", key=True, show="needed"),
    Column("model", key=True, show="needed"),
    Column("rules", key=True, show="differs"),
    Column("seeds"),
    *(LOSS, EXPLAINED, SHARE, SHARE_RAW, SHARE_EMA, SPEED, COMPILE),
    Column("remarks", show="filled", wraps=True),
)
"""Narrow enough for 80 columns, without the spare ones, where the rows are the two arms of one
pair."""
SWEEP_COLUMNS = (
    Column("value", key=True),
    Column("arm", key=True),
    Column("parameters"),
    Column("training set"),
    Column("epochs", "number"),
    *(LOSS, SHARE, SHARE_RAW, SHARE_EMA, EXPLAINED),
    Column("seeds"),
)
END_COLUMNS = (
    Column("arm", key=True),
    *(LOSS, OVER_BEST_UNTRAINED, EXPLAINED, SHARE, SHARE_RAW, SHARE_EMA),
    Column("seeds"),
)


BOUNDS = {"share": (0.0, 1.0), "explained": (-math.inf, 1.0)}
"""Between which the truth of a figure lies, and so its interval."""


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of those that are known; None without any."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def summary_tables(records: Sequence[RunRecord]) -> list[Table]:
    """Make a table for each pair of ``records``, rows in their order: means over finished seeds, of
    the annealed weights unless the column says raw or EMA.

    A row of an arm whose declared symmetry failed its measurement, or with diverged or unfinished
    seeds, says so.
    """
    arms: dict[str, dict[tuple[Cell, ...], list[RunRecord]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for record in records:
        budget = record.budget
        key = (
            record.arm if budget.extends is None else f"{record.arm}, extended",
            record.preset,
            Budget(budget.kind, budget.limit).text,
            variant_text(effective_variant(record)),
            record.model.kernels,
            record.environment.machine_key,
            f"{record.dataset.name} {record.dataset.sha256[:12]}",
            record.model.name,
            record.rules_version,
        )
        arms[f"{record.task}/{record.pair}"][key].append(record)
    tables = [
        Table(pair, SUMMARY_COLUMNS, [[*key, *_summary(runs)] for key, runs in rows.items()])
        for pair, rows in arms.items()
    ]
    # Once, below the last.
    return [*tables[:-1], *(with_legend(table) for table in tables[-1:])]


def _summary(runs: Sequence[RunRecord]) -> list[Cell]:
    done = finished_runs(runs)
    finals = [run.final for run in done if run.final is not None]
    remarks = []
    remarks += unconfirmed(runs)
    remarks += [f"seed {run.seed}: {found}" for run in runs if (found := disturbance(run))]
    remarks += [f"seed {run.seed} {run.status}" for run in runs if run.status != "completed"]
    return [
        seeds_text(len(done), len(runs)),
        mean(final.total for final in finals),
        mean(final.explained for final in finals),
        *(board_mean(name, done) for name in ("share", "share_raw", "share_ema")),
        # Of the runs that had their machine.
        *(board_mean(name, done) for name in ("samples_per_second", "compile_seconds")),
        "; ".join(remarks),
    ]


@dataclass(frozen=True)
class Figures:
    """Means over seeds: ``total`` (board metric, geometric), ``share`` and ``explained``."""

    total: Quantity
    share: Quantity
    explained: Quantity


@dataclass(frozen=True)
class Passed:
    """One rung of every seed: the annealed result of a smaller budget; counts are means over
    seeds."""

    step: float
    samples: float
    train_seconds: float
    test: Figures


@dataclass(frozen=True)
class SweepPoint:
    """One arm at one value of the axis, over its finished seeds."""

    value: str
    arm: str
    model: str
    parameters: int | None
    train_samples: int | None
    """Samples of the training split."""
    epochs: float | None
    seeds: int
    finished: int
    diverged: int
    final: Figures
    raw_share: Quantity
    """Of the weights where the cooldown begins, and of their average."""
    ema_share: Quantity
    rungs: list[Passed]


@dataclass(frozen=True)
class Sweep:
    """All points of one axis under one setting."""

    task: str
    pair: str
    preset: str
    machine_key: str
    budget: str
    axis: str
    unit: str
    """Of the loss."""
    points: list[SweepPoint]

    @property
    def arms(self) -> list[str]:
        """Names of the arms, in the order of their first points."""
        return list(dict.fromkeys(point.arm for point in self.points))

    def of(self, arm: str) -> list[SweepPoint]:
        """The points of ``arm``, in order."""
        return [point for point in self.points if point.arm == arm]


def value_places(values: Iterable[str]) -> dict[str, float]:
    """Where each value lies on the axis: at itself if all are numbers, else at its place in the
    order."""
    distinct = list(dict.fromkeys(values))
    try:
        return {value: float(value) for value in distinct}
    except ValueError:
        return {value: float(place) for place, value in enumerate(distinct)}


def gather_sweeps(
    records: Sequence[RunRecord], units: Mapping[str, str] | None = None
) -> list[Sweep]:
    """The sweeps that ``records`` hold, records of no sweep left out; ``units`` gives each task's
    board unit.

    Points are in ascending order where values are numbers, else in the order of the records. Of a
    seed the first finished record counts.
    """
    sweeps: dict[tuple[str, ...], dict[tuple[str, str], list[RunRecord]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for record in records:
        if "sweep" not in record.variant:
            continue
        told = effective_variant(record).items()
        options = sorted((name, value) for name, value in told if name != "value")
        budget = f"{record.budget.limit:.12g} {record.budget.kind}"
        where = (record.task, record.pair, record.preset, record.environment.machine_key, budget)
        data = (record.dataset.name, record.dataset.sha256)
        sweeps[(*where, record.variant["sweep"], *data, repr(options), str(record.rules_version))][
            record.variant["value"], record.arm
        ].append(record)
    found = []
    for (task, pair, preset, machine, budget, axis, *_), runs in sweeps.items():
        points = [_point(value, arm, counting_runs(own)) for (value, arm), own in runs.items()]
        places = value_places([point.value for point in points])
        points.sort(key=lambda point: places[point.value])
        unit = (units or {}).get(task, "")
        found.append(Sweep(task, pair, preset, machine, budget, axis, unit, points))
    return found


def sweep_table(sweep: Sweep) -> Table:
    """Make the table of a sweep, a row a point."""
    unit = f", {loss_in(sweep.unit)}" if sweep.unit else ""
    title = (
        f"{sweep.task}/{sweep.pair} over {sweep.axis}: {sweep.preset}, {sweep.budget} an arm, "
        f"{sweep.machine_key}{unit}"
    )
    rows = [
        [
            point.value,
            point.arm,
            point.parameters,
            point.train_samples,
            point.epochs,
            point.final.total,
            point.final.share,
            point.raw_share,
            point.ema_share,
            point.final.explained,
            f"{point.finished} of {point.seeds}"
            + (f", {point.diverged} diverged" if point.diverged else ""),
        ]
        for point in sweep.points
    ]
    return with_legend(Table(title, SWEEP_COLUMNS, rows))


def _point(value: str, arm: str, seeds: list[RunRecord]) -> SweepPoint:
    finished = finished_runs(seeds)
    first = seeds[0]
    return SweepPoint(
        value=value,
        arm=arm,
        model=first.model.name,
        parameters=first.model.parameters,
        train_samples=first.dataset.sizes.get("train"),
        epochs=mean(record.epochs for record in finished),
        seeds=len(seeds),
        finished=len(finished),
        diverged=sum(record.status == "diverged" for record in seeds),
        final=_figures(_finals(finished, "annealed")),
        raw_share=_figures(_finals(finished, "raw")).share,
        ema_share=_figures(_finals(finished, "ema")).share,
        rungs=[
            Passed(
                step=sum(point.step for point in points) / len(points),
                samples=sum(point.samples for point in points) / len(points),
                train_seconds=sum(point.train_seconds for point in points) / len(points),
                test=_figures([point.test for point in points]),
            )
            for points in zip(*common_curves(finished), strict=True)
        ],
    )


def _finals(runs: Sequence[RunRecord], weights: ResultWeights) -> list[Test]:
    return [test for run in runs if (test := final_of(run, weights)) is not None]


def _figures(tests: list[Test]) -> Figures:
    def quantity(name: str) -> Quantity:
        known = [value for test in tests if (value := getattr(test, name)) is not None]
        least, most = BOUNDS.get(name, (-math.inf, math.inf))
        return over_seeds(known, geometric=name == "total", least=least, most=most)

    return Figures(quantity("total"), quantity("share"), quantity("explained"))


def ends_table(shares: MatchedShares, title: str = "") -> Table:
    """Make the table of the arms' last evaluations: a row an arm, and one for each baseline."""
    rows: list[list[Cell]] = []
    for arm, end in shares.arms.items():
        seeds = f"{end.finished} of {end.seeds}"
        figures = (end.total, end.over_best_untrained, end.explained, *end.shares.values())
        rows.append([arm, *figures, seeds])
    baseline, named = shares.baseline, {"linear": shares.linear, **shares.others}
    losses = {name: loss for name, loss in named.items() if loss is not None}
    for name, loss in losses.items():
        # The baseline is told from an arm's explained part, so its own 0 is one to rounding.
        explained = round(1 - loss / baseline, 9) + 0.0 if baseline else None
        best = min(losses.values())
        over_best = loss / best if best else None
        rows.append([f"{name} baseline", loss, over_best, explained, "", "", "", ""])
    return with_legend(Table(title, END_COLUMNS, rows))


def levels_table(levels: Sequence[LossLevel], title: str = "") -> Table:
    """Make the table of the shares at common losses: a row for each loss, a column for each arm."""
    columns = [Column("share at", key=True), Column("loss", "number")]
    columns += [Column(arm, "number") for arm in (levels[0].arms if levels else {})]
    rows = [[level.name, level.loss, *map(_share, level.arms.values())] for level in levels]
    return Table(title, columns, rows)


def _share(reading: ShareReading) -> Quantity | Missing:
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
