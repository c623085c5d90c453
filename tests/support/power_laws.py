"""Runs whose losses are known functions of the seconds, for tests of what is read off over the
budget."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from factories import make_run

from equivbench.records.schema import RunRecord

TAU = {"equivariant": 0.2, "augmented": 0.1}
LIMIT = 100.0
BUDGETS = [0.2 * round(LIMIT / 0.2 * 2 ** (-k / 2)) for k in range(10, -1, -1)]
"""Of the rungs, a whole number of steps of either arm."""
COMPILE = {"equivariant": 30.0, "augmented": 10.0}


def law(prefactor: float, exponent: float) -> Callable[[float], float]:
    """Loss against seconds."""
    return lambda seconds: prefactor * seconds**-exponent


def runs(
    laws: dict[str, Callable[[float], float]],
    *,
    seeds: int = 1,
    noise: float = 0.0,
    generator: np.random.Generator | None = None,
    compiled: bool = False,
    first_seed: int = 0,
    every: int = 1,
    **more: object,
) -> list[RunRecord]:
    """Runs of ``LIMIT`` seconds whose loss follows ``laws`` in seconds, seeds apart by factors of
    spread ``noise`` (logs)."""
    records = []
    for arm, loss in laws.items():
        tau = TAU[arm]
        steps = [round(seconds / tau) for seconds in BUDGETS[::-every][::-1]]
        for seed in range(first_seed, first_seed + seeds):
            factor = 1.0 if generator is None else math.exp(noise * generator.standard_normal())
            records.append(
                make_run(
                    arm,
                    lambda step, loss=loss, tau=tau, factor=factor: factor * loss(step * tau),
                    steps,
                    tau=tau,
                    seed=seed,
                    run_id=f"{arm}-{seed}",
                    compile_seconds=COMPILE[arm] if compiled else 0.0,
                    limit=LIMIT,
                    **more,
                )
            )
    return records


CROSSING = {"equivariant": law(20.0, 0.7), "augmented": law(5.0, 0.3)}
"""Equal where 20 t^-.7 = 5 t^-.3."""
T_STAR = 4.0 ** (1 / 0.4)
