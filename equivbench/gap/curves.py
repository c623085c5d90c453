"""The learning curve of one seed: log loss against log steps, how each test group moves it, and
where a curve crosses a level.

Everything is in logarithms, so that a straight line is a power law and a mean over seeds a
geometric mean. ``K`` are the points of a curve, ``G`` the test groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from equivbench.gap.intervals import Censored
from equivbench.records.curves import Evaluation
from equivbench.records.schema import GroupErrors

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SeedCurve:
    """``log_steps`` [K] strictly increasing, ``log_loss`` [K], and ``influence`` [K, G]: the
    derivative of each log loss by the weight of each group, as a fraction of all; [K, 0] where
    groups are not known."""

    log_steps: Array
    log_loss: Array
    influence: Array

    def non_increasing(self) -> SeedCurve:
        """The non-increasing curve nearest to this one: neighbours that rise become their mean."""
        starts = pools(self.log_loss)
        return SeedCurve(
            self.log_steps,
            pooled(self.log_loss[:, None], starts)[:, 0],
            pooled(self.influence, starts),
        )

    def at(self, log_steps: Array) -> tuple[Array, Array]:
        """Log loss [P] and influence [P, G] at ``log_steps`` [P]: straight between the points, and
        beyond the ends along the first or the last segment."""
        grid = self.log_steps
        if len(grid) == 1:
            return (
                np.repeat(self.log_loss, len(log_steps)),
                np.repeat(self.influence, len(log_steps), axis=0),
            )
        right = np.clip(np.searchsorted(grid, log_steps), 1, len(grid) - 1)
        fraction = (log_steps - grid[right - 1]) / (grid[right] - grid[right - 1])

        def between(values: Array, part: Array) -> Array:
            return np.asarray((1.0 - part) * values[right - 1] + part * values[right])

        return between(self.log_loss, fraction), between(self.influence, fraction[:, None])


def curve_of(results: Sequence[Evaluation], *, grouped: bool) -> SeedCurve:
    """The curve through ``results``; without ``grouped`` no test groups are taken from it."""
    return SeedCurve(
        np.log([float(each.step) for each in results]),
        np.log([each.test.total or 0.0 for each in results]),
        np.stack([log_influence(each.test.groups if grouped else None) for each in results]),
    )


def log_influence(groups: GroupErrors | None, part_of_equivariance: float = 0.0) -> Array:
    """[G]: how each group moves the log of the total, or of total - c equivariance error; empty
    without groups.

    The value is a weighted mean m of the groups' errors e, whose log a group of weight w moves by
    w (e - m) / (m sum of w) (its influence function).
    """
    if groups is None:
        return np.zeros(0)
    weights = np.asarray(groups.weights)
    errors = np.asarray(groups.total) - part_of_equivariance * np.asarray(groups.equivariance)
    mean = float(weights @ errors / weights.sum())
    return np.asarray(weights * (errors - mean) / (mean * weights.sum()))


def pools(values: Array) -> NDArray[np.intp]:
    """Where the pools of the least-squares non-increasing fit of ``values`` [K] start, and K."""
    return np.asarray(isotonic_regression(values, increasing=False).blocks, dtype=np.intp)


def pooled(rows: Array, starts: NDArray[np.intp]) -> Array:
    """``rows`` [K, M] with each replaced by the mean of its pool."""
    sizes = np.diff(starts)
    means = np.add.reduceat(rows, starts[:-1], axis=0) / sizes[:, None] if rows.size else rows
    return np.repeat(means, sizes, axis=0) if rows.size else rows


def decreasing(values: Array) -> Array:
    """The least-squares non-increasing fit of ``values`` [K]."""
    return np.asarray(isotonic_regression(values, increasing=False).x)


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
