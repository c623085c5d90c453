"""Power laws through the rungs of the last decade: closed forms, coverage, why there are none."""

from __future__ import annotations

import numpy as np
import pytest
from power_laws import LIMIT, law, runs

from equivbench.gap.pairing import pair_up
from equivbench.gap.power_laws import CurveScaling, fit_within_run
from equivbench.records.schema import RunRecord

LAWS = {"equivariant": law(20.0, 0.7), "augmented": law(5.0, 0.3)}


def fit(records: list[RunRecord]) -> CurveScaling | str:
    (matched,) = pair_up(records).matched
    return fit_within_run(matched)


def test_power_laws_are_recovered() -> None:
    found = fit(runs(LAWS))
    # Least squares on exact straight lines; only rounding is left.
    assert found.equivariant.value == pytest.approx(0.7, abs=1e-9)
    assert found.augmented.value == pytest.approx(0.3, abs=1e-9)
    assert LIMIT / 10 <= found.since < LIMIT / 7
    assert found.until == pytest.approx(LIMIT)


def test_the_interval_of_an_exponent_holds_it() -> None:
    generator = np.random.default_rng(0)
    trials, covered = 60, 0
    for _ in range(trials):
        records = []
        for seed in range(4):
            # Seeds differ in their exponents, by .05.
            first, second = (0.05 * generator.standard_normal(2)).tolist()
            tilted = {"equivariant": law(20.0, 0.7 + first), "augmented": law(5.0, 0.3 + second)}
            records += runs(tilted, first_seed=seed)
        exponent = fit(records).equivariant
        covered += exponent.low <= 0.7 <= exponent.high
    # 95% of 60 is 57 with a standard deviation of 1.7; four of them below.
    assert covered >= 50


@pytest.mark.parametrize(
    ("records", "why"),
    [
        (runs(LAWS, every=4), "fewer than 3 rungs"),
        (runs(LAWS, budget={"kind": "steps"}), "not in seconds"),
        (
            runs({"equivariant": LAWS["equivariant"]})
            + runs({"augmented": LAWS["augmented"]}, status="diverged"),
            "diverged",
        ),
    ],
)
def test_why_there_is_no_fit(records: list[RunRecord], why: str) -> None:
    assert why in str(fit(records))
