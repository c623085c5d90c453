"""Power laws through the last decade of a curve: closed forms, what bends, and what is extrapolated
and what not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from power_laws import LIMIT, law, runs

from equivbench.gap.efficiency import MeasuredGap, measure_gaps
from equivbench.gap.power_laws import CurveScaling, fit_within_run
from equivbench.records.schema import RunRecord


def only(records: list[RunRecord]) -> MeasuredGap:
    (weighed,) = measure_gaps(records)
    return weighed


def fits(records: list[RunRecord]) -> CurveScaling:
    weighed = only(records)
    found = fit_within_run(weighed.curves, weighed.runs)
    assert isinstance(found, CurveScaling), found
    return found


def test_power_laws_are_recovered() -> None:
    found = fits(runs({"equivariant": law(20.0, 0.7), "augmented": law(5.0, 0.3)}))
    # Least squares on exact straight lines; only rounding is left.
    assert found.equivariant.exponent.value == pytest.approx(0.7, abs=1e-9)
    assert found.augmented.exponent.value == pytest.approx(0.3, abs=1e-9)
    assert found.equivariant.bend.value == pytest.approx(0.0, abs=1e-7)
    assert (found.since, found.until) == (pytest.approx(LIMIT / 10), pytest.approx(LIMIT))


def test_the_interval_of_an_exponent_covers() -> None:
    generator = np.random.default_rng(0)
    trials, covered = 60, 0
    for _ in range(trials):
        laws = {"equivariant": law(20.0, 0.7), "augmented": law(5.0, 0.3)}
        records = [
            record
            for seed in range(4)
            for record in runs(
                # Seeds differ in their exponents, by .05.
                {arm: law(*_tilted(arm, generator)) for arm in laws},
                first_seed=seed,
            )
        ]
        exponent = fits(records).equivariant.exponent
        covered += exponent.low <= 0.7 <= exponent.high
    # 95% of 60 is 57 with a standard deviation of 1.7; four of them below.
    assert covered >= 50


def _tilted(arm: str, generator: np.random.Generator) -> tuple[float, float]:
    prefactor, exponent = {"equivariant": (20.0, 0.7), "augmented": (5.0, 0.3)}[arm]
    return prefactor, exponent + 0.05 * generator.standard_normal()


def test_a_crossing_beyond_the_data_is_extrapolated_from_straight_lines() -> None:
    # Equal at 300 s, three times the budget; the augmented arm is ahead within it.
    laws = {"equivariant": law(3.0 * 300**0.6, 0.6), "augmented": law(3.0 * 300**0.3, 0.3)}
    generator = np.random.default_rng(3)
    weighed = only(runs(laws, seeds=5, noise=0.01, generator=generator))
    assert weighed.gap.lead_changes == []
    found = fit_within_run(weighed.curves, weighed.runs)
    assert isinstance(found, CurveScaling)
    assert found.reason is None
    assert found.extrapolated.to == "equivariant"
    # Offsets of .01 a seed move the mean ratio by .006, and with slope .3 the crossing's logarithm
    # by .02; four deviations.
    assert found.extrapolated.log_seconds.value == pytest.approx(math.log(300), abs=0.08)
    assert (
        found.extrapolated.log_seconds.low
        <= found.extrapolated.log_seconds.value
        <= found.extrapolated.log_seconds.high
    )


def test_a_crossing_more_than_a_decade_ahead_is_not_given() -> None:
    laws = {"equivariant": law(3000**0.6, 0.6), "augmented": law(3000**0.3, 0.3)}
    found = fits(runs(laws, seeds=5, noise=0.01, generator=np.random.default_rng(3)))
    assert found.extrapolated is None
    assert "another decade" in found.reason


def test_what_bends_is_not_extrapolated() -> None:
    # The equivariant arm's exponent falls from .9 to .3 over the decade: at its start the lines
    # seem to cross soon.
    def bending(seconds: float) -> float:
        u = math.log(seconds / LIMIT)
        return 6.0 * math.exp(-0.3 * u + 0.13 * u * u)

    laws = {"equivariant": bending, "augmented": law(4.0 * LIMIT**0.1, 0.1)}
    found = fits(runs(laws, seeds=5, noise=0.005, generator=np.random.default_rng(4)))
    # The derivative of the exponent, twice .13 a unit of log seconds, over a decade.
    assert found.equivariant.bend.value == pytest.approx(-0.26 * math.log(10), rel=0.02)
    assert found.extrapolated is None
    assert "no power law" in found.reason


def test_equal_exponents_are_not_extrapolated() -> None:
    generator = np.random.default_rng(5)
    found = fits(
        [
            record
            for seed in range(3)
            for record in runs(
                {
                    arm: law(9.0, 0.5 + 0.05 * generator.standard_normal())
                    for arm in ("equivariant", "augmented")
                },
                first_seed=seed,
            )
        ]
    )
    assert found.extrapolated is None
    assert "exponents apart" in found.reason


def test_why_there_is_no_fit() -> None:
    few = only(runs({"equivariant": law(2.0, 0.5), "augmented": law(2.0, 0.5)}, every=12))
    assert "fewer than 3 evaluations" in fit_within_run(few.curves, few.runs)  # type: ignore[operator]
    records = runs({"equivariant": law(2.0, 0.5)}, seeds=3) + runs(
        {"augmented": law(2.0, 0.5)}, seeds=2
    )
    records += runs({"augmented": law(2.0, 0.5)}, first_seed=2, status="diverged")
    lost = only(records)
    assert "diverged" in fit_within_run(lost.curves, lost.runs)  # type: ignore[operator]
