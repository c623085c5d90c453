"""When things happen: evaluations log-spaced in spent budget, the learning rate's warm-up, and
checkpoints."""

from __future__ import annotations

import math

from equivbench.budget import Budget

FIRST_FRACTION = 0.02
"""The first evaluation falls at 2% of the budget: the curve then spans a factor 50 in n, enough for
break-even ratios."""


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


def learning_rate(step: int, rate: float, warmup_steps: int) -> float:
    """The rate of ``step`` (from 0): linear over ``warmup_steps``, then constant, so that a curve's
    every point is a result."""
    return rate * min(1.0, (step + 1) / warmup_steps) if warmup_steps > 0 else rate


def checkpoint_due(
    budget: Budget, spent_since: float, seconds_since: float, save_seconds: float
) -> bool:
    """Whether to save: ten times over a budget of steps or samples, and each 10 s, but never at
    more than 2% of the time.

    ``spent_since`` (the budget's unit) and ``seconds_since`` count from the last save, which took
    ``save_seconds``.
    """
    if budget.kind != "seconds" and spent_since >= math.ceil(budget.limit / 10):
        return True
    return seconds_since >= max(10.0, 50.0 * save_seconds)
