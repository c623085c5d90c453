"""Squared norms of means, and ratios of such norms, from independent parts: unbiased, with
jackknife intervals.

With unbiased estimates g_k of a vector g from K independent parts, |mean g_k|^2 is biased upward by
the variance of the mean; products of different parts are not. A part of weight w_k (its share of
all rows) is a sum over rows, w_k g_k, and the mean over rows is a ratio of sums, so that

    |g|^2 = sum_{j != k} w_j w_k g_j . g_k / sum_{j != k} w_j w_k,

the U-statistic of degree two (Hoeffding 1948); at equal weights (|sum g|^2 - sum |g|^2) / (K (K -
1)). Everything follows from the Gram matrix of the g_k. Intervals: delete-one jackknife over the
parts of the logarithm (Arvesen 1969), Student with K - 1 degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from equivbench.gap.intervals import LEVEL, UNKNOWN, Quantity

Array = NDArray[np.float64]
FEWEST_PARTS = 3
"""Leaving one out must leave a product of two."""


@dataclass(frozen=True)
class ReasonedQuantity:
    """A quantity, and why its value or its interval is missing where it is."""

    quantity: Quantity
    reason: str | None = None


def square(gram: Array, weights: Array) -> float:
    """Unbiased estimate of |g|^2 from ``gram`` [K, K] of the parts' estimates and their ``weights``
    [K]; may be negative."""
    apart = np.outer(weights, weights)
    np.fill_diagonal(apart, 0.0)
    return float((apart * gram).sum() / apart.sum())


def norm(gram: Array, weights: Array) -> ReasonedQuantity:
    """|g|, the root of :func:`square`; unknown, with the reason, where the square is not
    positive."""
    return _with_interval(
        lambda kept: _half_log(_without(gram, kept), weights[kept]),
        len(weights),
        "the estimate of its square",
    )


def ratio(above: Array, below: Array, weights: Array) -> ReasonedQuantity:
    """|g| / |h| from the Gram matrices of both on the same parts."""

    def difference(kept: NDArray[np.intp]) -> float:
        own = weights[kept]
        return _half_log(_without(above, kept), own) - _half_log(_without(below, kept), own)

    return _with_interval(difference, len(weights), "the estimate of a square")


def _with_interval(
    log_value: Callable[[NDArray[np.intp]], float], parts: int, what: str
) -> ReasonedQuantity:
    everything = np.arange(parts)
    value = log_value(everything)
    if not math.isfinite(value):
        return ReasonedQuantity(
            UNKNOWN,
            f"{what} is not positive: what there is cannot be told from zero with so few samples",
        )
    estimate = math.exp(value)
    if parts < FEWEST_PARTS:
        return ReasonedQuantity(
            Quantity(estimate), f"an interval takes at least {FEWEST_PARTS} chunks"
        )
    left_out = np.array([log_value(np.delete(everything, k)) for k in everything])
    if not np.isfinite(left_out).all():
        return ReasonedQuantity(
            Quantity(estimate), f"no interval: without one of the chunks {what} is not positive"
        )
    # The jackknife's variance, (K - 1) / K sum (theta_k - mean)^2.
    error = math.sqrt((parts - 1) * float(left_out.var()))
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, parts - 1)) * error
    return ReasonedQuantity(Quantity(estimate, math.exp(value - reach), math.exp(value + reach)))


def _half_log(gram: Array, weights: Array) -> float:
    """log |g|; not a number where the square is not positive."""
    squared = square(gram, weights)
    return 0.5 * math.log(squared) if squared > 0 else math.nan


def _without(gram: Array, kept: NDArray[np.intp]) -> Array:
    rows: Array = gram[np.ix_(kept, kept)]
    return rows
