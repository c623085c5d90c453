"""Learning curves of one arm: log test loss against log steps, over seeds, and where two such
curves cross.

Axes are ``R`` replicates (row 0 is what was measured, the others have the test groups drawn anew),
``S`` seeds and ``K`` grid points. Everything is in logarithms, so that a straight line is a power
law and a mean over seeds a geometric mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from equivbench.gap.intervals import Censored

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SeedCurve:
    """The curve of one seed: ``log_steps`` [K'] strictly increasing, ``log_loss`` [R, K']."""

    log_steps: Array
    log_loss: Array


@dataclass(frozen=True)
class GriddedCurves:
    """The finished seeds' curves on one grid: ``log_steps`` [K], ``log_loss`` [R, S, K]."""

    log_steps: Array
    log_loss: Array
    measured_to: float
    """The last log steps that were evaluated; beyond, the last value stands."""

    def reaching(self, log_steps: float) -> GriddedCurves:
        """The same curves, held at their last value up to ``log_steps`` if they end before it.

        Steps timed apart from the run allow a few more steps in the budget than the run made; what
        the run ended with is its result at the budget.
        """
        if log_steps <= self.log_steps[-1]:
            return self
        held = np.concatenate([self.log_loss, self.log_loss[..., -1:]], axis=-1)
        return replace(self, log_steps=np.append(self.log_steps, log_steps), log_loss=held)

    def fits(self) -> Array:
        """[R, K]: the isotonic fit of the mean over seeds."""
        return decreasing(self.log_loss.mean(axis=1))

    def seed_fits(self) -> Array:
        """[S, K]: the isotonic fit of each seed's measured curve."""
        return decreasing(self.log_loss[0])


def gather(curves: Sequence[SeedCurve]) -> GriddedCurves:
    """Bring the curves of all seeds to one grid, the union of their points.

    The grid starts where every seed has begun and ends at the last point that more than half of the
    seeds reach (under a budget in seconds they end at slightly different steps, and perhaps not all
    were extended). A seed that ends before it goes on with the mean slope of the others, so that
    dropping out moves no mean.
    """
    last = sorted((float(curve.log_steps[-1]) for curve in curves), reverse=True)[len(curves) // 2]
    first = min(max(float(curve.log_steps[0]) for curve in curves), last)
    union = np.unique(np.concatenate([curve.log_steps for curve in curves]))
    grid: Array = union[(union >= first) & (union <= last)]
    log_loss = np.stack(
        [evaluate(curve.log_steps, curve.log_loss, grid) for curve in curves], axis=1
    )
    ends = np.array([curve.log_steps[-1] for curve in curves])
    for k in range(1, len(grid)):
        present = ends >= grid[k]
        if not present.all():
            slope = log_loss[:, present, k] - log_loss[:, present, k - 1]
            log_loss[:, ~present, k] = log_loss[:, ~present, k - 1] + slope.mean(
                axis=1, keepdims=True
            )
    return GriddedCurves(grid, log_loss, last)


def evaluate(grid: Array, rows: Array, points: Array) -> Array:
    """[M, P]: ``rows`` [M, K] on ``grid`` [K], interpolated linearly at ``points`` [M, P] or [P];
    constant beyond the ends."""
    shape = (len(rows), points.shape[-1])
    if len(grid) == 1:
        return np.broadcast_to(rows, shape).copy()
    right = np.clip(np.searchsorted(grid, points, side="right"), 1, len(grid) - 1)
    fraction = np.clip((points - grid[right - 1]) / (grid[right] - grid[right - 1]), 0.0, 1.0)
    if points.ndim == 1:
        return np.asarray((1.0 - fraction) * rows[:, right - 1] + fraction * rows[:, right])
    before = np.take_along_axis(rows, right - 1, axis=1)
    after = np.take_along_axis(rows, right, axis=1)
    return np.asarray((1.0 - fraction) * before + fraction * after)


def decreasing(rows: Array) -> Array:
    """The least-squares non-increasing fit of each row of ``rows`` [M, K].

    All rows are pooled in one pass: laid end to end, each so far below the one before it that no
    two are ever pooled. That pass only says which neighbours belong together; the levels are means
    of the rows as they are, which no offset has rounded.
    """
    count, length = rows.shape
    apart = 1.0 + float(np.ptp(rows)) if rows.size else 1.0
    starts = isotonic_regression(
        (rows - apart * np.arange(count)[:, None]).ravel(), increasing=False
    ).blocks
    sizes = np.diff(starts)
    levels = np.repeat(np.add.reduceat(rows.ravel(), starts[:-1]) / sizes, sizes).reshape(
        count, length
    )
    # Neighbours equal but for rounding may come out in either order.
    return np.asarray(np.minimum.accumulate(levels, axis=1))


def last_crossing(grid: Array, difference: Array) -> tuple[float, Censored]:
    """Where a non-increasing ``difference`` [K] on ``grid`` [K] goes below zero for good, linearly
    interpolated.

    ``above``: it never comes down to zero; the last grid point is then a lower bound. ``below``: it
    is negative from the start; the first grid point is then an upper bound. On a stretch of exact
    zeros the crossing is its end, so that two identical curves tie where they are compared and not
    earlier.
    """
    if difference[-1] > 0:
        return float(grid[-1]), "above"
    if difference[0] < 0:
        return float(grid[0]), "below"
    k = int(np.flatnonzero(difference >= 0)[-1])
    if k == len(grid) - 1:
        return float(grid[k]), None
    fraction = difference[k] / (difference[k] - difference[k + 1])
    return float(grid[k] + fraction * (grid[k + 1] - grid[k])), None
