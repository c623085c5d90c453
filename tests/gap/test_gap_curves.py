"""Learning curves: the common grid, the isotonic fit and crossings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import isotonic_regression

from equivbench.gap.curves import SeedCurve, decreasing, evaluate, gather, last_crossing
from equivbench.gap.power_laws import power_law


def curve(steps: list[float], log_loss: list[float]) -> SeedCurve:
    return SeedCurve(np.log(steps), np.array([log_loss]))


def test_interpolation_is_numpy_s_row_by_row() -> None:
    generator = np.random.default_rng(0)
    grid, rows = np.sort(generator.standard_normal(6)), generator.standard_normal((3, 6))
    own, shared = generator.uniform(-3, 3, (3, 5)), np.concatenate([grid, [-9.0, 9.0]])
    for points in (own, shared):
        expected = [
            np.interp(at, grid, row)
            for at, row in zip(np.broadcast_to(points, (3, points.shape[-1])), rows, strict=True)
        ]
        # Two ways of rounding the same straight line.
        np.testing.assert_allclose(evaluate(grid, rows, points), expected, atol=1e-12)
    np.testing.assert_array_equal(
        evaluate(grid[:1], rows[:, :1], shared), np.broadcast_to(rows[:, :1], (3, 8))
    )


rows = arrays(np.float64, (1, 8), elements=st.floats(-5, 5))


@settings(max_examples=50, deadline=None)
@given(rows)
def test_the_fit_never_rises_keeps_the_mean_and_is_idempotent(row: np.ndarray) -> None:
    fit = decreasing(row)
    # Rounding of sums of eight numbers up to 5.
    assert (np.diff(fit, axis=1) <= 1e-12).all()
    assert fit.mean() == pytest.approx(row.mean(), abs=1e-12)
    np.testing.assert_allclose(decreasing(fit), fit, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(
    arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 8)), elements=st.floats(-50, 50))
)
def test_rows_fitted_together_are_rows_fitted_one_by_one(many: np.ndarray) -> None:
    alone = [isotonic_regression(row, increasing=False).x for row in many]
    # Sums of eight numbers up to 50 in two orders, and where neighbours are equal but for rounding.
    np.testing.assert_allclose(decreasing(many), alone, atol=1e-10)


@settings(max_examples=50, deadline=None)
@given(rows, st.floats(-5, 5))
def test_a_crossing_separates_above_from_below(row: np.ndarray, level: float) -> None:
    grid = np.arange(8.0)
    difference = decreasing(row)[0] - level
    where, censored = last_crossing(grid, difference)
    if censored == "above":
        assert difference[-1] > 0
    elif censored == "below":
        assert difference[0] < 0
    else:
        assert (difference[grid < where - 1e-9] >= -1e-9).all()
        assert (difference[grid > where + 1e-9] <= 1e-9).all()


def test_two_identical_curves_cross_at_their_end() -> None:
    grid, flat = np.arange(4.0), np.array([1.0, 0.0, 0.0, 0.0])
    assert last_crossing(grid, flat) == (3.0, None)


def test_a_noisy_dip_below_the_target_is_no_crossing() -> None:
    # The raw curve is below zero at the second point, then above it for long: only the last passage
    # counts.
    noisy = np.array([[1.0, -0.1, 0.8, 0.6, -0.5]])
    where, _ = last_crossing(np.arange(5.0), decreasing(noisy)[0])
    assert 3.0 < where < 4.0


def test_a_seed_that_ends_early_goes_on_with_the_others_slope() -> None:
    curves = [
        curve([1, 10, 100], [0.0, -1.0, -2.0]),
        curve([1, 10, 100], [0.0, -1.0, -2.0]),
        curve([1, 10], [5.0, 4.0]),
    ]
    gathered = gather(curves)
    assert gathered.log_steps[-1] == pytest.approx(np.log(100))
    np.testing.assert_allclose(gathered.log_loss[0, 2], [5.0, 4.0, 3.0], atol=1e-12)


def test_the_grid_ends_where_only_half_of_the_seeds_go_on() -> None:
    curves = [curve([1, 10, 100], [0.0, -1.0, -2.0]), curve([1, 10], [0.0, -1.0])]
    assert gather(curves).log_steps[-1] == pytest.approx(np.log(10))


def test_curves_are_held_at_their_last_value_up_to_the_budget() -> None:
    gathered = gather([curve([1, 10], [0.0, -1.0])])
    held = gathered.reaching(np.log(20.0))
    assert held.log_loss[0, 0].tolist() == [0.0, -1.0, -1.0]
    assert held.measured_to == pytest.approx(np.log(10))
    assert gathered.reaching(np.log(5.0)) is gathered


def test_a_power_law_is_recovered_with_its_interval() -> None:
    budgets = [10.0, 30.0, 100.0, 300.0]
    exact = power_law(budgets, [2.0 * budget**-0.3 for budget in budgets])
    assert (exact.exponent, exact.prefactor) == (pytest.approx(0.3), pytest.approx(2.0))
    noisy = power_law(
        budgets,
        [
            2.0 * budget**-0.3 * factor
            for budget, factor in zip(budgets, [1.1, 0.9, 1.1, 0.9], strict=True)
        ],
    )
    assert noisy.low < 0.3 < noisy.high
    with pytest.raises(ValueError, match="3 different budgets"):
        power_law([1.0, 2.0], [1.0, 0.5])
