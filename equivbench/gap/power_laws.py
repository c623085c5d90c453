"""How the loss falls with the budget: a power law through the rungs of each arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equivbench.gap.intervals import Quantity, group_part, plain, student
from equivbench.gap.leads import log_losses_at, tests_at_rungs
from equivbench.gap.pairing import MatchedRuns

Array = NDArray[np.float64]
ENOUGH = 3
"""Rungs from which an exponent is fitted."""
DECADE = 10.0
"""How far below the budget the rungs go that are fitted."""


@dataclass(frozen=True)
class CurveScaling:
    """The exponent of loss ~ budget ** -exponent of each arm, over its rungs from ``since`` to
    ``until`` seconds, compilation left out. The intervals are over seeds and test groups; they do
    not cover that the loss may be no power law."""

    since: float
    until: float
    equivariant: Quantity
    augmented: Quantity


def fit_within_run(runs: MatchedRuns) -> CurveScaling | str:
    """The fits over the last decade of the budget, or in words why there are none.

    Least squares of log loss on the logarithm of the rungs' budgets, seed by seed.
    """
    tests = tests_at_rungs(runs)
    if isinstance(tests, str):
        return tests
    budgets = [budget for budget in tests if budget >= runs.setting.budget_limit / DECADE]
    if len(budgets) < ENOUGH:
        return f"fewer than {ENOUGH} rungs in the last decade of the budget"
    centred = np.log(budgets) - np.mean(np.log(budgets))
    slope = centred / (centred @ centred)
    equivariant, augmented = (
        _exponent(slope, [log_losses_at(tests[budget][arm]) for budget in budgets])
        for arm in runs.arms
    )
    return CurveScaling(budgets[0], budgets[-1], equivariant, augmented)


def _exponent(slope: Array, rungs: Sequence[tuple[Array, Array]]) -> Quantity:
    """``slope`` [K]: weights of the log losses at the K rungs, [S] each with influences [S, G]."""
    seeds = -slope @ np.array([logs for logs, _ in rungs])
    influence = -np.tensordot(slope, np.array([each for _, each in rungs]), 1).mean(axis=0)
    groups = [group_part(influence[:, None])] if influence.size else []
    return plain(student(seeds.mean(keepdims=True), seeds[:, None], *groups))
