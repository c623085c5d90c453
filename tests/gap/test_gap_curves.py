"""Learning curves of one seed: what lies between and beyond the points, the non-increasing fit,
crossings, and how test groups move a loss."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from equivbench.gap.curves import SeedCurve, decreasing, last_crossing, log_influence
from equivbench.records.schema import GroupErrors

GRID = np.arange(8.0)
rows = arrays(np.float64, 8, elements=st.floats(-5, 5))


def curve(log_loss: np.ndarray) -> SeedCurve:
    """With the losses as the influence of a single group."""
    return SeedCurve(GRID, log_loss, log_loss[:, None])


@settings(max_examples=50, deadline=None)
@given(rows, arrays(np.float64, 5, elements=st.floats(-3, 11)))
def test_a_curve_is_straight_between_its_points_and_goes_on_beyond_them(
    row: np.ndarray, places: np.ndarray
) -> None:
    log_loss, influence = curve(row).at(places)
    inside = (places >= 0) & (places <= 7)
    # Two ways of rounding the same straight line.
    np.testing.assert_allclose(log_loss[inside], np.interp(places[inside], GRID, row), atol=1e-12)
    before, after = places < 0, places > 7
    np.testing.assert_allclose(
        log_loss[before], row[0] + places[before] * (row[1] - row[0]), atol=1e-12
    )
    np.testing.assert_allclose(
        log_loss[after], row[-1] + (places[after] - 7) * (row[-1] - row[-2]), atol=1e-12
    )
    np.testing.assert_array_equal(influence[:, 0], log_loss)


def test_a_curve_of_one_point_is_flat() -> None:
    single = SeedCurve(np.zeros(1), np.full(1, 2.0), np.zeros((1, 0)))
    assert single.at(np.array([-1.0, 3.0]))[0].tolist() == [2.0, 2.0]


@settings(max_examples=50, deadline=None)
@given(rows)
def test_the_fit_never_rises_keeps_the_mean_and_is_idempotent(row: np.ndarray) -> None:
    fit = decreasing(row)
    # Rounding of sums of eight numbers up to 5.
    assert (np.diff(fit) <= 1e-12).all()
    assert fit.mean() == pytest.approx(row.mean(), abs=1e-12)
    np.testing.assert_allclose(decreasing(fit), fit, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(rows)
def test_influences_are_pooled_as_the_losses_are(row: np.ndarray) -> None:
    fitted = curve(row).non_increasing()
    np.testing.assert_allclose(fitted.log_loss, decreasing(row), atol=1e-12)
    np.testing.assert_array_equal(fitted.influence[:, 0], fitted.log_loss)


@settings(max_examples=50, deadline=None)
@given(rows, st.floats(-5, 5))
def test_a_crossing_separates_above_from_below(row: np.ndarray, level: float) -> None:
    difference = decreasing(row) - level
    where, censored = last_crossing(GRID, difference)
    if censored == "above":
        assert difference[-1] > 0
    elif censored == "below":
        assert difference[0] < 0
    else:
        assert (difference[where - 1e-9 > GRID] >= -1e-9).all()
        assert (difference[where + 1e-9 < GRID] <= 1e-9).all()


def test_two_identical_curves_cross_at_their_end() -> None:
    grid, flat = np.arange(4.0), np.array([1.0, 0.0, 0.0, 0.0])
    assert last_crossing(grid, flat) == (3.0, None)


def test_a_noisy_dip_below_the_target_is_no_crossing() -> None:
    # The raw curve is below zero at the second point, then above it for long: only the last passage
    # counts.
    noisy = np.array([1.0, -0.1, 0.8, 0.6, -0.5])
    where, _ = last_crossing(np.arange(5.0), decreasing(noisy))
    assert 3.0 < where < 4.0


weights = arrays(np.float64, 6, elements=st.floats(1, 20))
errors = arrays(np.float64, 6, elements=st.floats(0.1, 10))


@settings(max_examples=50, deadline=None)
@given(weights, errors, errors, st.sampled_from([0.0, 0.5]), st.integers(0, 5))
def test_an_influence_is_the_derivative_by_the_weight_of_a_group(
    weight: np.ndarray, total: np.ndarray, part: np.ndarray, fraction: float, group: int
) -> None:
    equivariance = np.minimum(part, total)

    def log_mean(moved: np.ndarray) -> float:
        shown = total - fraction * equivariance
        return float(np.log(moved @ shown / moved.sum()))

    groups = GroupErrors(
        weights=weight.tolist(), total=total.tolist(), equivariance=equivariance.tolist()
    )
    found = log_influence(groups, fraction)
    step = 1e-5 * weight * (np.arange(6) == group)
    difference = (log_mean(weight + step) - log_mean(weight - step)) / 2e-5
    # A central difference of a smooth function of order one.
    assert found[group] == pytest.approx(difference, abs=1e-7)
    assert found.sum() == pytest.approx(0.0, abs=1e-12)


def test_without_groups_nothing_moves() -> None:
    assert log_influence(None).shape == (0,)
