"""When what happens in a run: the learning rate falls over the last part of a budget, branches off
the training give the results of smaller budgets, and the weights are measured at fixed steps.

All of it follows from a budget alone, so that a record can be held against it.
"""

from __future__ import annotations

import math

from equivbench.budget import Budget

COOLDOWN = 0.2
"""The last part of a budget, over which the learning rate falls linearly to zero."""
_MARKS = (1, 2, 5)


def cooldown_begins(limit: float) -> float:
    """What of a budget of ``limit`` is spent when its cooldown begins."""
    return limit - COOLDOWN * limit


def annealing(spent: float, limit: float) -> float:
    """The factor on the learning rate of the step that begins with ``spent`` of a budget of
    ``limit``."""
    return min(1.0, max(0.0, (limit - spent) / (COOLDOWN * limit)))


def rung_budgets(budget: Budget, rungs: int) -> list[float]:
    """The smaller budgets, ascending, whose annealed results a run with ``budget`` measures on its
    way: a half, a quarter, ... (``rungs`` of them).

    Whole numbers, without repeats, where the budget counts steps or samples.
    """
    halves = [budget.limit / 2**k for k in range(1, rungs + 1)]
    limits = halves if budget.kind == "seconds" else [float(math.ceil(half)) for half in halves]
    return sorted({limit for limit in limits if limit < budget.limit})


def is_traced(step: int) -> bool:
    """Whether weights are measured after ``step`` steps: 1, 2, 5, 10, 20, 50, ..."""
    return step > 0 and next_traced(step - 1) == step


def next_traced(step: int) -> int:
    """The first step after ``step`` at which weights are measured."""
    decade = int("1" + "0" * (len(str(step)) - 1))
    return next(mark for mark in (*(each * decade for each in _MARKS), 10 * decade) if mark > step)
