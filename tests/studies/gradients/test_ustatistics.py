"""Squared norms from products of independent parts: unbiased where plain norms are not, with
intervals that cover."""

from __future__ import annotations

import math

import numpy as np
import pytest

from equivbench.studies.gradients.statistics import norm, ratio, square

WEIGHTS = np.array([0.05, 0.1, 0.1, 0.15, 0.2, 0.4])
"""Parts of very unequal size."""


def parts(
    length: float, noise: float, draws: int, seed: int, weights: np.ndarray = WEIGHTS
) -> np.ndarray:
    """[draws, K, 20] estimates of a vector of that length; the variance of one falls with its
    part's size."""
    generator = np.random.default_rng(seed)
    truth = length * np.full(20, 20**-0.5)
    return (
        truth
        + noise
        * generator.standard_normal((draws, len(weights), 20))
        / np.sqrt(20 * weights)[:, None]
    )


def gram(estimates: np.ndarray) -> np.ndarray:
    return estimates @ estimates.T


def standard_errors_off(values: list[float], truth: float) -> float:
    return float((np.mean(values) - truth) / (np.std(values) / math.sqrt(len(values))))


@pytest.mark.parametrize("length", [0.0, 0.7])
def test_the_square_is_unbiased_at_unequal_weights_and_the_plain_square_is_not(
    length: float,
) -> None:
    drawn = parts(length, 1.0, 2000, seed=1)
    products = [square(gram(each), WEIGHTS) for each in drawn]
    plain = [float(WEIGHTS @ gram(each) @ WEIGHTS) for each in drawn]
    # Four standard errors: a chance of 1e-4, and the seed is fixed.
    assert abs(standard_errors_off(products, length**2)) < 4
    # The plain one is too large by the variance of the mean, which is 1.
    assert abs(standard_errors_off(plain, length**2 + 1)) < 4
    assert standard_errors_off(plain, length**2) > 20


def test_at_equal_weights_it_is_the_formula_of_pairs() -> None:
    estimates = parts(1.0, 1.0, 1, seed=2)[0]
    k = len(estimates)
    total = estimates.sum(0)
    expected = (total @ total - (estimates**2).sum()) / (k * (k - 1))
    assert square(gram(estimates), np.full(k, 1 / k)) == pytest.approx(expected, rel=1e-12)


def test_without_noise_norm_and_ratio_are_exact_with_intervals_of_no_length() -> None:
    above, below = gram(parts(3.0, 0.0, 1, seed=0)[0]), gram(parts(0.5, 0.0, 1, seed=0)[0])
    for judged, truth in ((norm(above, WEIGHTS), 3.0), (ratio(above, below, WEIGHTS), 6.0)):
        quantity = judged.quantity
        assert (quantity.value, quantity.low, quantity.high) == pytest.approx(
            (truth,) * 3, rel=1e-7
        )  # root of rounding
        assert judged.reason is None


def test_intervals_cover() -> None:
    weights = np.full(8, 1 / 8)
    above, below = (
        parts(1.0, 0.4, 300, seed=3, weights=weights),
        parts(1.0, 0.4, 300, seed=4, weights=weights),
    )
    covered = (
        [
            (own.low or 0) <= 1 <= (own.high or 0)
            for own in (norm(gram(each), weights).quantity for each in above)
        ],
        [
            (own.low or 0) <= 1 <= (own.high or 0)
            for own in (
                ratio(gram(a), gram(b), weights).quantity for a, b in zip(above, below, strict=True)
            )
        ],
    )
    for each in covered:
        # 95% less three standard errors of 300 draws, 1.3% each; the Student interval is wide
        # rather than narrow.
        assert np.mean(each) > 0.91


def test_a_square_that_is_not_positive_is_unknown_and_never_zero() -> None:
    apart = np.array([[1.0, -0.2, 0.0], [-0.2, 1.0, 0.0], [0.0, 0.0, 1.0]])
    clear = np.ones((3, 3))
    equal = np.full(3, 1 / 3)
    assert square(apart, equal) < 0
    for judged in (norm(apart, equal), ratio(apart, clear, equal), ratio(clear, apart, equal)):
        assert judged.quantity.value is None
        assert judged.quantity.low is judged.quantity.high is None
        assert "not positive" in (judged.reason or "")


def test_where_leaving_one_part_out_leaves_nothing_positive_the_interval_is_open() -> None:
    # Only the pair of the first two parts agrees.
    found = norm(np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]]), np.full(3, 1 / 3))
    assert found.quantity.value == pytest.approx(math.sqrt(0.3), rel=1e-12)
    assert found.quantity.low is found.quantity.high is None
    assert "without one of the chunks" in (found.reason or "")


def test_two_parts_give_a_value_and_no_interval() -> None:
    found = norm(np.array([[1.0, 0.25], [0.25, 1.0]]), np.array([0.5, 0.5]))
    assert found.quantity.value == 0.5
    assert found.quantity.low is None
    assert "at least 3 chunks" in (found.reason or "")
