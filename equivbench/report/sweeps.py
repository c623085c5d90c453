"""A sweep's records as curves: loss, share and explained signal of each arm at each point, at the
end and along the way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from equivbench.gap.intervals import Quantity, over_seeds
from equivbench.records.schema import RunRecord, Test, TracePoint
from equivbench.report.table import Column, Table

COLUMNS = (
    Column("value", key=True),
    Column("arm", key=True),
    Column("parameters"),
    Column("training set"),
    Column("epochs", "number"),
    Column("loss", "number", better="lower"),
    Column("share", "number", better="lower"),
    Column("explained", "number", better="higher"),
    Column("seeds"),
)


@dataclass(frozen=True)
class Figures:
    """Means over seeds: ``total`` (board metric, geometric), ``share`` and ``explained``."""

    total: Quantity
    share: Quantity
    explained: Quantity


@dataclass(frozen=True)
class Passed:
    """One evaluation during training, at the same place of the budget in every seed; counts are
    means over seeds."""

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
    parameters: int
    train_samples: int | None
    """Samples of the training split."""
    epochs: float | None
    seeds: int
    finished: int
    diverged: int
    final: Figures
    trace: list[Passed]


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


def gather_sweeps(records: Sequence[RunRecord], units: dict[str, str] | None = None) -> list[Sweep]:
    """The sweeps that ``records`` hold, records of no sweep left out; ``units`` gives each task's
    board unit.

    Points are in ascending order where values are numbers, else in the order of the records. The
    newest record of a seed counts.
    """
    sweeps: dict[tuple[str, ...], dict[tuple[str, str], dict[int, RunRecord]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for record in records:
        if "sweep" not in record.variant:
            continue
        options = sorted((name, value) for name, value in record.variant.items() if name != "value")
        budget = f"{record.budget.limit:.12g} {record.budget.kind}"
        where = (record.task, record.pair, record.preset, record.environment.machine_key, budget)
        data = (record.dataset.name, record.dataset.sha256)
        seeds = sweeps[
            (*where, record.variant["sweep"], *data, repr(options), str(record.rules_version))
        ]
        point = seeds[record.variant["value"], record.arm]
        known = point.get(record.seed)
        if known is None or (known.created, known.run_id) <= (record.created, record.run_id):
            point[record.seed] = record
    found = []
    for (task, pair, preset, machine_key, budget, axis, *_), runs in sweeps.items():
        found.append(
            Sweep(
                task,
                pair,
                preset,
                machine_key,
                budget,
                axis,
                (units or {}).get(task, ""),
                _points(runs),
            )
        )
    return found


def sweep_table(sweep: Sweep) -> Table:
    """Make the table of a sweep, a row a point."""
    unit = f", loss in {sweep.unit}" if sweep.unit else ""
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
            point.final.explained,
            f"{point.finished} of {point.seeds}"
            + (f", {point.diverged} diverged" if point.diverged else ""),
        ]
        for point in sweep.points
    ]
    return Table(title, COLUMNS, rows)


def _points(runs: dict[tuple[str, str], dict[int, RunRecord]]) -> list[SweepPoint]:
    points = [_point(value, arm, list(seeds.values())) for (value, arm), seeds in runs.items()]
    if all(_is_number(point.value) for point in points):
        return sorted(points, key=lambda point: float(point.value))
    values = list(dict.fromkeys(point.value for point in points))
    return sorted(points, key=lambda point: values.index(point.value))


def _point(value: str, arm: str, seeds: list[RunRecord]) -> SweepPoint:
    finished = [
        record for record in seeds if record.status == "completed" and record.final is not None
    ]
    first = seeds[0]
    return SweepPoint(
        value=value,
        arm=arm,
        model=first.model.name,
        parameters=first.model.parameters,
        train_samples=first.dataset.sizes.get("train"),
        epochs=_mean([record.epochs for record in finished]) if finished else None,
        seeds=len(seeds),
        finished=len(finished),
        diverged=sum(record.status == "diverged" for record in seeds),
        final=_figures([record.final for record in finished if record.final is not None]),
        # Evaluations lie at the same fractions of the budget in every seed; one that lacks some has
        # no mean beyond them.
        trace=[
            _passed(list(points))
            for points in zip(*(record.trace for record in finished), strict=False)
        ],
    )


def _passed(points: list[TracePoint]) -> Passed:
    return Passed(
        step=_mean([point.step for point in points]),
        samples=_mean([point.samples for point in points]),
        train_seconds=_mean([point.train_seconds for point in points]),
        test=_figures([point.test for point in points]),
    )


def _figures(tests: list[Test]) -> Figures:
    def known(value: Callable[[Test], float | None]) -> list[float]:
        return [each for each in map(value, tests) if each is not None]

    return Figures(
        total=over_seeds(known(lambda test: test.total), geometric=True),
        share=over_seeds(known(lambda test: test.share)),
        explained=over_seeds(known(lambda test: test.explained)),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
