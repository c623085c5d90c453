"""Correlations along training: a shared trend is not a relation, and a relation survives without
the trend."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest
from gradient_analyses import analysis, point

from equivbench.studies.gradients.statistics import PairedSeries, correlation, correlations, pool

STEPS = np.geomspace(3, 3000, 12)


def trending(seed: int, related: float, noise: float = 0.3, power: float = 1.0) -> PairedSeries:
    """Two quantities that fall together as a power of the step, with residuals that correlate by
    ``related``."""
    generator = np.random.default_rng(seed)
    first, own = generator.standard_normal((2, len(STEPS)))
    second = related * first + np.sqrt(1 - related**2) * own
    trend = -power * np.log(STEPS)
    return PairedSeries(STEPS, np.exp(trend + noise * first), np.exp(2 * trend + noise * second))


def test_a_shared_trend_alone_correlates_raw_and_not_detrended() -> None:
    runs = [trending(seed, 0.0) for seed in range(40)]
    raw, detrended = correlation(runs, 0).quantity, correlation(runs, 2).quantity
    assert raw.value is not None
    assert detrended.value is not None
    assert raw.value > 0.95
    # 40 runs of 12 points leave 360 degrees of freedom: a standard error of .05.
    assert abs(detrended.value) < 0.2
    assert detrended.low is not None
    assert detrended.high is not None
    assert detrended.low < 0 < detrended.high


def test_a_relation_survives_the_detrending() -> None:
    runs = [trending(seed, 0.8) for seed in range(40)]
    detrended = correlation(runs, 2).quantity
    # 360 degrees of freedom: three standard errors of (1 - .8^2) / sqrt(360) = .019 each.
    assert detrended.value == pytest.approx(0.8, abs=0.06)
    assert detrended.low is not None
    assert detrended.low > 0.6


def test_detrended_knows_nothing_of_any_quadratic_trend_and_either_of_units() -> None:
    plain = trending(0, 0.5)
    bent = dataclasses.replace(
        plain,
        first=7 * plain.first * STEPS**1.3,
        second=plain.second * np.exp(0.2 * np.log(STEPS) ** 2),
    )
    assert correlation([bent], 2).quantity.value == pytest.approx(
        correlation([plain], 2).quantity.value, rel=1e-9
    )
    scaled = dataclasses.replace(plain, first=7 * plain.first)
    assert correlation([scaled], 0).quantity.value == pytest.approx(
        correlation([plain], 0).quantity.value, rel=1e-9
    )
    assert correlation([bent], 0).quantity.value != pytest.approx(
        correlation([plain], 0).quantity.value, rel=1e-2
    )


def test_each_run_is_detrended_by_itself_so_that_levels_of_runs_do_not_correlate() -> None:
    # Between runs both levels rise together by orders of magnitude.
    runs = [
        dataclasses.replace(
            trending(seed, 0.0, power=0.0),
            first=each.first * 10**seed,
            second=each.second * 10**seed,
        )
        for seed, each in enumerate(trending(seed, 0.0, power=0.0) for seed in range(30))
    ]
    for degree in (0, 2):
        found = correlation(runs, degree).quantity
        assert found.value is not None
        # 330 and 270 degrees of freedom: standard errors of .055 and .061.
        assert abs(found.value) < 0.2


def test_more_runs_narrow_the_interval_and_few_points_leave_it_open() -> None:
    few, many = (
        correlation([trending(seed, 0.5) for seed in range(count)], 2).quantity for count in (1, 6)
    )
    assert few.low is not None
    assert few.high is not None
    assert many.low is not None
    assert many.high is not None
    assert many.high - many.low < 0.6 * (few.high - few.low)
    short = trending(0, 0.5)
    cut = PairedSeries(short.step[:4], short.first[:4], short.second[:4])
    found = correlation([cut], 2)
    assert found.quantity.value is not None
    assert found.quantity.low is None
    assert "degrees of freedom" in (found.reason or "")
    none = correlation([PairedSeries(short.step[:3], short.first[:3], short.second[:3])], 2)
    assert none.quantity.value is None
    assert "more than 3 points" in (none.reason or "")


def test_smooth_curves_count_for_fewer_points_than_they_have() -> None:
    smooth = PairedSeries(
        STEPS, np.exp(np.sin(np.log(STEPS) / 2)), np.exp(np.sin(np.log(STEPS) / 2 + 0.3))
    )
    jagged = trending(0, 0.9, power=0.0)
    wide, narrow = correlation([smooth], 0).quantity, correlation([jagged], 0).quantity
    assert wide.value is not None
    assert narrow.value is not None
    # Fisher's z has a standard error of its own whatever the correlation: compare on its scale.
    reach = [
        (np.arctanh(each.high) - np.arctanh(each.low)) / 2 if each.high is not None else np.inf
        for each in (wide, narrow)
    ]
    assert reach[0] > 1.3 * reach[1]


def test_a_constant_correlates_with_nothing() -> None:
    run = dataclasses.replace(trending(0, 0.5), first=np.full(12, 0.65))
    for degree in (0, 2):
        found = correlation([run], degree)
        assert found.quantity.value is None
        assert found.reason == "one of the two does not vary"


def test_points_that_are_null_zero_or_negative_are_left_out() -> None:
    whole = analysis(seed=0)
    bad = [
        point(step=4000, ratio=None, deviation=None),
        *(point(step=5000 + k, share=share) for k, share in enumerate((0.0, -1e-9, None))),
    ]
    longer = msgspec.structs.replace(whole, points=[*whole.points, *bad])
    assert correlations([longer]) == correlations([whole])


def test_without_deviations_there_is_no_correlation_with_them_and_a_reason() -> None:
    found = correlations([analysis(seed=0, deviates=False)])
    assert found["ratio"].quantity.value is not None
    for name in ("deviation", "deviation detrended"):
        assert found[name].quantity.value is None
        assert found[name].reason


def test_runs_are_pooled_with_their_like_alone() -> None:
    analyses = [
        analysis(seed=seed, arm=arm) for seed in range(3) for arm in ("augmented", "equivariant")
    ]
    pooled = pool([*analyses, analysis(seed=0, variant={"sweep": "data", "value": "0.25"})])
    assert [(each.arm, each.variant, each.runs) for each in pooled] == [
        ("augmented", {}, 3),
        ("equivariant", {}, 3),
        ("augmented", {"sweep": "data", "value": "0.25"}, 1),
    ]
    assert pooled[0].correlations == correlations(analyses[::2])
