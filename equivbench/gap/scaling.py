"""How the loss falls with the budget: a power law through the gaps of one pair at three or more
budgets."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from equivbench.gap.resampling import LEVEL

if TYPE_CHECKING:
    from equivbench.gap.efficiency import PairGap

ENOUGH = 3
"""Budgets from which a slope has an interval (two points leave no residual)."""


@dataclass(frozen=True)
class Scaling:
    """loss = ``prefactor`` * budget ** -``exponent``, with the 95% interval of the exponent."""

    exponent: float
    low: float
    high: float
    prefactor: float
    budgets: list[float]


def power_law(budgets: Sequence[float], losses: Sequence[float]) -> Scaling:
    """Least squares of log loss on log budget, Student interval with len - 2 degrees of freedom.

    Raises ``ValueError`` below three different budgets.
    """
    if len(set(budgets)) < ENOUGH:
        raise ValueError(
            f"a scaling fit needs {ENOUGH} different budgets, got {sorted(set(budgets))}"
        )
    fit = stats.linregress(np.log(budgets), np.log(losses))
    half = float(stats.t.ppf(0.5 + LEVEL / 2, len(budgets) - 2) * fit.stderr)
    exponent = -float(fit.slope)
    return Scaling(
        exponent, exponent - half, exponent + half, math.exp(float(fit.intercept)), sorted(budgets)
    )


def fit_scaling(gaps: Sequence[PairGap]) -> list[PairGap]:
    """``gaps`` with ``scaling`` filled in where the same setting was run at three or more budgets
    of one kind."""
    series: dict[str, list[PairGap]] = defaultdict(list)
    for gap in gaps:
        if gap.loss_equivariant.value is not None and gap.loss_augmented.value is not None:
            series[_apart_from_budget(gap)].append(gap)
    fits = {name: _fit(members) for name, members in series.items() if len(members) >= ENOUGH}
    return [replace(gap, scaling=fits.get(_apart_from_budget(gap))) for gap in gaps]


def _fit(members: Sequence[PairGap]) -> dict[str, Scaling]:
    budgets = [float(gap.budget["limit"]) for gap in members]
    losses = {
        "equivariant": [gap.loss_equivariant.value for gap in members],
        "augmented": [gap.loss_augmented.value for gap in members],
    }
    return {
        arm: power_law(budgets, [value for value in values if value is not None])
        for arm, values in losses.items()
    }


def _apart_from_budget(gap: PairGap) -> str:
    where = (gap.task, gap.pair, gap.preset, gap.machine_key, gap.rules_version, gap.budget["kind"])
    return repr((where, gap.dataset, sorted(gap.variant.items()), sorted(gap.kernels.items())))
