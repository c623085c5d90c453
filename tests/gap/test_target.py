"""The time to a target loss: closed forms on power laws, bounds, the paired comparison."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from equivbench.gap.intervals import UNKNOWN
from equivbench.gap.target import (
    CostedLoss,
    TimeToLoss,
    compare_times,
    mean_time,
    time_to_loss,
)


def power_law(
    scale: float, exponent: float, tau: float = 0.02, steps: int = 64, rungs: int = 6
) -> list[CostedLoss]:
    """Annealed losses ``scale`` n^-``exponent`` after n steps of ``tau`` seconds and 8 samples, at
    doubling budgets."""
    return [
        CostedLoss(tau * n, n, 8 * n, scale * n**-exponent)
        for n in (steps * 2**place for place in range(rungs))
    ]


def took(*seconds: float) -> list[TimeToLoss]:
    return [TimeToLoss(each, 10 * each, 80 * each) for each in seconds]


@given(
    scale=st.floats(0.1, 100.0),
    exponent=st.floats(0.1, 2.0),
    place=st.floats(0.01, 0.99),
)
def test_a_power_law_comes_down_where_it_does_whatever_the_rungs(
    scale: float, exponent: float, place: float
) -> None:
    n = 64 * 32**place
    found = time_to_loss(power_law(scale, exponent), scale * n**-exponent)
    # Straight lines on logarithmic axes: only rounding is left.
    assert found.steps == pytest.approx(n, rel=1e-9)
    assert found.seconds == pytest.approx(0.02 * n, rel=1e-9)
    assert found.samples == pytest.approx(8 * n, rel=1e-9)
    assert found.censored is None


def test_a_run_that_does_not_come_down_to_it_gives_a_bound() -> None:
    points = power_law(1.0, 0.5)
    low, high = (points[place] for place in (-1, 0))
    above = time_to_loss(points, 0.9 * low.loss)
    assert (above.censored, above.seconds) == ("above", pytest.approx(low.seconds))
    below = time_to_loss(points, 1.1 * high.loss)
    assert (below.censored, below.steps) == ("below", pytest.approx(high.steps))
    assert time_to_loss(points, low.loss).censored is None


def test_a_loss_that_rises_again_is_reached_for_good_only() -> None:
    losses = [4.0, 1.0, 2.0, 1.0]
    points = [CostedLoss(2.0**n, 2.0**n, 2.0**n, loss) for n, loss in enumerate(losses)]
    # The second and third become their geometric mean, 2^.5; from there it falls to 1 over a factor
    # of two: it is at 2^.25 half way, on logarithmic axes.
    assert time_to_loss(points, 2**0.25).seconds == pytest.approx(4 * 2**0.5)


def test_points_without_a_place_on_the_axes_are_left_out() -> None:
    points = power_law(1.0, 0.5)
    odd = [CostedLoss(0.0, 0.0, 0.0, 1.0), *points[:3], CostedLoss(9.0, 9.0, 9.0, 0.0), *points[3:]]
    assert time_to_loss(odd, 0.05) == time_to_loss(points, 0.05)
    assert time_to_loss(odd[:1], 0.05) is None
    assert time_to_loss([], 0.05) is None


def test_the_mean_is_geometric_with_students_interval() -> None:
    values = [10.0, 12.0, 15.0, 11.0]
    found = mean_time(values, [None] * 4)
    logs = np.log(values)
    interval = stats.t.interval(0.95, 3, logs.mean(), stats.sem(logs))
    assert found.value == pytest.approx(stats.gmean(values))
    assert (found.low, found.high) == pytest.approx(tuple(np.exp(interval)))


def test_the_mean_of_bounds_is_a_bound() -> None:
    above = mean_time([10.0, 40.0], [None, "above"])
    assert (above.value, above.low, above.censored) == (pytest.approx(20.0), None, "above")
    assert mean_time([10.0, 40.0], ["below", None]).censored == "below"
    assert mean_time([10.0, 40.0], ["below", "above"]) == UNKNOWN
    assert mean_time([], []) == UNKNOWN


@given(st.lists(st.tuples(st.floats(1.0, 9.0), st.floats(1.0, 9.0)), min_size=2, max_size=8))
def test_the_comparison_is_students_paired_test_on_logarithms(
    pairs: list[tuple[float, float]],
) -> None:
    these, others = zip(*pairs, strict=True)
    logs = np.log(others) - np.log(these)
    if np.ptp(logs) < 1e-6:  # a spread that is rounding decides nothing
        return
    found = compare_times(took(*these), took(*others))
    assert found.p == pytest.approx(stats.ttest_1samp(logs, 0, alternative="greater").pvalue)
    assert found.speed_up.value == pytest.approx(math.exp(logs.mean()))
    assert found.reason is None


def test_who_did_not_come_down_is_never_taken_for_faster() -> None:
    others = took(20.0, 21.0, 22.0)
    late = [TimeToLoss(5.0, 1.0, 1.0, "above"), *took(10.0, 11.0)]
    found = compare_times(late, others)
    assert (found.speed_up, found.p) == (UNKNOWN, None)
    assert "not every run came down" in found.reason
    early = [TimeToLoss(50.0, 1.0, 1.0, "below"), *others[1:]]
    assert compare_times(took(10.0, 11.0, 12.0), early).p is None


def test_bounds_that_make_the_difference_smaller_keep_the_test_valid() -> None:
    these = took(10.0, 11.0, 12.0)
    late = [TimeToLoss(20.0, 1.0, 1.0, "above"), *took(23.0, 24.0)]
    found = compare_times(these, late)
    as_times = compare_times(these, took(20.0, 23.0, 24.0))
    assert found.p == as_times.p
    assert found.speed_up.value == as_times.speed_up.value
    assert (found.speed_up.censored, found.speed_up.high) == ("above", None)


def test_one_seed_is_compared_and_not_tested() -> None:
    found = compare_times(took(10.0), took(20.0))
    assert (found.speed_up.value, found.p) == (pytest.approx(2.0), None)
    assert "one seed" in found.reason
    assert compare_times([], []).reason == "no seed was run by both"
