"""How far a run is, as it is shown while it trains, and at which points of its budget it is
evaluated; imports no torch."""

from __future__ import annotations

import math

import msgspec

from equivbench.budget import Budget

FIRST_FRACTION = 0.02
"""The first evaluation falls at 2% of the budget: the curve then spans a factor 50 in n, enough for
break-even ratios."""


class Progress(msgspec.Struct, tag="progress", frozen=True):
    """How far one arm's training is. ``spent`` and ``limit`` are in the budget's own unit."""

    step: int
    spent: float
    limit: float
    finished: bool
    """The budget is spent, or the arm diverged."""
    samples: int = 0
    diverged: str | None = None
    """Why the arm diverged, if it did."""
    loss: float | None = None
    """Training objective, averaged over recent steps."""
    total: float | None = None
    """Board metric of the last evaluation; ``share`` and ``explained`` belong to it."""
    share: float | None = None
    explained: float | None = None
    samples_per_second: float | None = None
    seconds_left: float | None = None
    """Seconds of training and data at the speed so far; None before the first step."""


def evaluation_points(budget: Budget, evaluations: int, first: float | None = None) -> list[float]:
    """Ascending points of spent budget at which to evaluate, the last exactly ``budget.limit``.

    ``evaluations`` points log-spaced from ``first`` (default 2% of the limit); whole numbers,
    without repeats, where the budget counts steps or samples.
    """
    limit = budget.limit
    first = limit * FIRST_FRACTION if first is None else first
    count = max(1, evaluations)
    ratio = (first / limit) ** (1.0 / max(1, count - 1))
    points = [limit * ratio**k for k in range(count - 1, 0, -1)]
    if budget.kind != "seconds":
        points = [float(math.ceil(point)) for point in points]
    return [*sorted({point for point in points if point < limit}), limit]


def extension_points(reached: float, budget: Budget, evaluations: int) -> list[float]:
    """Further points after ``reached``, up to ``budget.limit``, as dense in log spent as the first
    ``evaluations``."""
    step = math.log(1.0 / FIRST_FRACTION) / max(1, evaluations - 1)
    count = max(1, math.ceil(math.log(budget.limit / reached) / step))
    ratio = (budget.limit / reached) ** (1.0 / count)
    return [
        point
        for point in evaluation_points(budget, count, first=reached * ratio)
        if point > reached
    ]
