"""Learning curves as data: each row of the board over its finished seeds, against device seconds,
samples and steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equivbench.gap.intervals import Quantity, student
from equivbench.gap.pairing import ArmRun
from equivbench.records.schema import RunRecord, TracePoint
from equivbench.report.board import BoardSetting, Row

Array = NDArray[np.float64]
AXES = ("seconds", "samples", "steps")


@dataclass(frozen=True)
class CurvePoint:
    """The k-th evaluation of every finished seed.

    Coordinates and loss are geometric means: points of one power law average to a point of it,
    though the seeds were not evaluated at quite the same step.
    """

    seconds: float
    """Budget seconds (training and data) spent when the evaluation began."""
    samples: float
    steps: float
    total: Quantity
    """The board metric, with its 95% Student interval over seeds on the logarithm; open with one
    seed."""
    share: Quantity
    """Mean over seeds of the equivariance error as a share of the total; unknown where a seed has
    none."""


@dataclass(frozen=True)
class Curve:
    """The learning curve of the row ``row`` of the board of ``setting``; no points where no seed
    finished."""

    setting: BoardSetting
    row: Row
    points: tuple[CurvePoint, ...]


def curve_points(finished: Sequence[RunRecord]) -> tuple[CurvePoint, ...]:
    """The means over the runs ``finished``, evaluation by evaluation; none where none has a trace.

    The rules put evaluations at the same points of the budget, so seeds are averaged evaluation by
    evaluation, counted from the end: one whose first step was slow has fewer at the start.
    """
    traces = [trace for trace in map(_trace, finished) if trace]
    if not traces:
        return ()
    fewest = min(map(len, traces))
    points = [trace[-fewest:] for trace in traces]
    where = np.exp(
        np.mean(
            [[np.log([p.train_seconds, p.samples, p.step]) for p in seed] for seed in points],
            axis=0,
        )
    )
    loss = _over_seeds(
        np.array([[_number(point.test.total) for point in seed] for seed in points]), geometric=True
    )
    share = _over_seeds(
        np.array([[_number(point.test.share) for point in seed] for seed in points])
    )
    together = zip(where.tolist(), loss, share, strict=True)
    return tuple(CurvePoint(at[0], at[1], at[2], total, part) for at, total, part in together)


def _trace(run: RunRecord) -> list[TracePoint]:
    """What has a place on logarithmic axes."""
    return [
        point for point in ArmRun(run).trace()[0] if point.train_seconds > 0 and point.samples > 0
    ]


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _over_seeds(values: Array, *, geometric: bool = False) -> list[Quantity]:
    """The mean of each column of ``values`` [seeds, points] with its Student interval; NaN is
    unknown.

    :func:`equivbench.gap.intervals.over_seeds` for many points at once, which is what makes a page
    of a thousand runs quick.
    """
    shown = np.log(values) if geometric else values
    band = student(shown.mean(axis=0), shown, None)
    ends = np.stack([band.mid, band.low, band.high])
    if geometric:
        with np.errstate(over="ignore"):  # seeds that differ wildly leave an end open
            ends = np.where(np.isfinite(ends), np.exp(ends), np.inf)
    return [
        Quantity(*(end if math.isfinite(end) else None for end in point))
        for point in ends.T.tolist()
    ]
