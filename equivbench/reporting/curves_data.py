"""Learning curves as data: each row of the board over its finished seeds, against device seconds, samples and steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equivbench.analysis.pairing import ArmRun
from equivbench.analysis.quantities import Quantity
from equivbench.analysis.resampling import student
from equivbench.records.schema import RunRecord, TracePoint
from equivbench.reporting.board import Row, Setting

Array = NDArray[np.float64]
AXES = ("seconds", "samples", "steps")


@dataclass(frozen=True)
class CurvePoint:
    """The k-th evaluation of every finished seed.

    Coordinates and loss are geometric means: points of one power law average to a point of it, though the seeds were not
    evaluated at quite the same step.
    """

    seconds: float
    """Budget seconds (training and data) spent when the evaluation began."""
    samples: float
    steps: float
    total: Quantity
    """The board metric, with its 95% Student interval over seeds on the logarithm; open with one seed."""
    share: Quantity
    """Mean over seeds of the equivariance error as a share of the total; unknown where a seed has none."""


@dataclass(frozen=True)
class Curve:
    """The learning curve of the row ``row`` of the board of ``setting``; no points where no seed finished."""

    setting: Setting
    row: Row
    points: tuple[CurvePoint, ...]


def make_curve(setting: Setting, row: Row, finished: Sequence[RunRecord]) -> Curve:
    """The curve over the runs ``finished`` of ``row``, which ends at its ``total``.

    Seeds that were evaluated as often as each other are averaged evaluation by evaluation (the rules put evaluations at the
    same points of the budget); else all are interpolated, in logarithms, at the evaluations of the seed that has the fewest,
    as far as every seed reaches.
    """
    traces = [trace for trace in (ArmRun(run).trace()[0] for run in finished) if trace]
    if not traces:
        return Curve(setting, row, ())
    at = [np.log([[point.train_seconds, point.samples, point.step] for point in trace]) for trace in traces]
    loss = [np.log(np.array([point.test.total for point in trace], dtype=np.float64)) for trace in traces]
    share = [_shares(trace) for trace in traces]
    if len({len(each) for each in loss}) > 1:
        grid = min(at, key=len)[:, 0]
        grid = grid[(grid >= max(each[0, 0] for each in at)) & (grid <= min(each[-1, 0] for each in at))]
        loss = [np.interp(grid, where[:, 0], each) for where, each in zip(at, loss, strict=True)]
        share = [np.interp(grid, where[:, 0], each) for where, each in zip(at, share, strict=True)]
        at = [np.stack([np.interp(grid, where[:, 0], axis) for axis in where.T], axis=1) for where in at]
    coordinates = np.exp(np.mean(at, axis=0))
    totals = [each.map(lambda log: float(np.exp(log))) for each in _over_seeds(np.stack(loss))]
    points = zip(coordinates.tolist(), totals, _over_seeds(np.stack(share)), strict=True)
    return Curve(setting, row, tuple(CurvePoint(where[0], where[1], where[2], total, parts) for where, total, parts in points))


def _shares(trace: Sequence[TracePoint]) -> Array:
    return np.array([np.nan if point.test.share is None else point.test.share for point in trace], dtype=np.float64)


def _over_seeds(values: Array) -> list[Quantity]:
    """The mean of each column of ``values`` [seeds, points] with its Student interval; NaN is unknown."""
    band = student(values.mean(axis=0), values, None)
    known = [[float(each) if np.isfinite(each) else None for each in end] for end in (band.mid, band.low, band.high)]
    return [Quantity(*each) for each in zip(*known, strict=True)]
