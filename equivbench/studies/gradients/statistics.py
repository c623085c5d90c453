"""The statistics of gradients along runs: norms without bias, and correlations beyond a trend.

Squared norms of means, and ratios of such norms, from independent parts: unbiased, with jackknife
intervals.

With unbiased estimates g_k of a vector g from K independent parts, |mean g_k|^2 is biased upward by
the variance of the mean; products of different parts are not. A part of weight w_k (its share of
all rows) is a sum over rows, w_k g_k, and the mean over rows is a ratio of sums, so that

    |g|^2 = sum_{j != k} w_j w_k g_j . g_k / sum_{j != k} w_j w_k,

the U-statistic of degree two (Hoeffding 1948); at equal weights (|sum g|^2 - sum |g|^2) / (K (K -
1)). Everything follows from the Gram matrix of the g_k. Intervals: delete-one jackknife over the
parts of the logarithm (Arvesen 1969), Student with K - 1 degrees of freedom.

Correlations along training that tell a shared trend from a relation: raw, and with each run's
trend in time taken out.

Two quantities that both fall as a run goes on correlate whatever they have to do with each other.
So each is regressed, in logarithms, on a quadratic in log step, run by run, and the residuals are
correlated over all runs: a partial correlation given log step and its square. The raw correlation
takes out each run's mean alone.

Intervals: Fisher's z at the degrees of freedom that are left, variance 1 / (nu - 2) with nu = sum
over runs of (points - fitted coefficients) (Fisher 1924 for partial correlations: each variable
held fixed costs one), where nu is cut by (1 - a) / (1 + a), a = the product of both lag-one
autocorrelations along the runs where that is positive (Bartlett 1935): neighbouring points of a
smooth curve are not two observations. Of unrelated first-order autoregressive series (7 to 20
points, 1 or 3 runs) 2 to 6% are called related at an autocorrelation of 0, up to 12% at 0.8. A
trend that no quadratic follows is still in the residuals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from equivbench.gap.intervals import LEVEL, UNKNOWN, Quantity
from equivbench.studies.gradients.record import Gradients

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
        lambda kept: _half_log(gram, weights, kept), len(weights), "the estimate of its square"
    )


def ratio(above: Array, below: Array, weights: Array) -> ReasonedQuantity:
    """|g| / |h| from the Gram matrices of both on the same parts."""
    return _with_interval(
        lambda kept: _half_log(above, weights, kept) - _half_log(below, weights, kept),
        len(weights),
        "the estimate of a square",
    )


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


def _half_log(gram: Array, weights: Array, kept: NDArray[np.intp]) -> float:
    """log |g| from the ``kept`` parts; not a number where the square is not positive."""
    squared = square(gram[np.ix_(kept, kept)], weights[kept])
    return 0.5 * math.log(squared) if squared > 0 else math.nan


DEGREES: Mapping[str, int] = {"": 0, " detrended": 2}
"""Degree in log step of the trend that is taken out, by what is added to the quantity's name."""
QUANTITIES = ("ratio", "deviation")
"""What is correlated with the share."""
_LEAST_FREEDOM = 2.0
"""At which the variance of Fisher's z is infinite."""
_NOTHING = 1e-9
"""Residuals this small beside the values are the rounding of the fit: a constant correlates with
nothing."""


@dataclass(frozen=True)
class PairedSeries:
    """Two quantities at the points of one run, all positive."""

    step: Array
    first: Array
    second: Array


def correlation(runs: Sequence[PairedSeries], degree: int) -> ReasonedQuantity:
    """Correlation of log ``first`` with log ``second`` after a polynomial of ``degree`` in log step
    is taken out of each run.

    Runs of ``degree`` + 1 points or fewer have no residual and are left out.
    """
    usable = [run for run in runs if len(run.step) > degree + 1]
    if not usable:
        return ReasonedQuantity(
            UNKNOWN, f"no run has more than {degree + 1} points at which both are positive"
        )
    pairs = [
        (_residual(run.step, run.first, degree), _residual(run.step, run.second, degree))
        for run in usable
    ]
    first, second = (np.concatenate(each) for each in zip(*pairs, strict=True))
    size = math.sqrt(float(first @ first) * float(second @ second))
    if size == 0:
        return ReasonedQuantity(UNKNOWN, "one of the two does not vary")
    r = max(-1.0, min(1.0, float(first @ second) / size))
    shared = max(0.0, _lag_one([a for a, _ in pairs]) * _lag_one([b for _, b in pairs]))
    freedom = sum(len(run.step) - degree - 1 for run in usable) * (1 - shared) / (1 + shared)
    if freedom <= _LEAST_FREEDOM:
        return ReasonedQuantity(
            Quantity(r), f"no interval: {freedom:.1f} degrees of freedom are left"
        )
    reach = float(stats.norm.ppf(0.5 + LEVEL / 2)) / math.sqrt(freedom - _LEAST_FREEDOM)
    z = math.atanh(r) if abs(r) < 1 else math.copysign(math.inf, r)
    return ReasonedQuantity(Quantity(r, math.tanh(z - reach), math.tanh(z + reach)))


def correlations(analyses: Sequence[Gradients]) -> dict[str, ReasonedQuantity]:
    """Of the gradient ratio and of the deviation with the share, raw and detrended, over the points
    of all ``analyses``.

    Keys as :attr:`equivbench.studies.gradients.record.Gradients.correlations` has them. Each
    analysis is one run, with a mean and a trend of its own; give it those of one kind of run.
    Points at which either is null, zero or negative are left out.
    """
    found = {}
    for quantity in QUANTITIES:
        runs = [
            run
            for run in (_paired_series(analysis, quantity) for analysis in analyses)
            if len(run.step)
        ]
        for label, degree in DEGREES.items():
            found[quantity + label] = correlation(runs, degree)
    return found


@dataclass(frozen=True)
class Pooled:
    """The correlations over all runs of one kind: the seeds of one arm under one setting."""

    task: str
    pair: str
    arm: str
    preset: str
    machine_key: str
    variant: Mapping[str, str]
    weights: str
    split: str
    runs: int
    correlations: Mapping[str, ReasonedQuantity]


def pool(analyses: Sequence[Gradients]) -> list[Pooled]:
    """:func:`correlations` over the runs of each kind among ``analyses``, in the order in which the
    kinds appear."""
    kinds: dict[tuple[object, ...], list[Gradients]] = {}
    for each in analyses:
        where = (each.task, each.pair, each.arm, each.preset, each.environment.machine_key)
        kinds.setdefault(
            (*where, tuple(sorted(each.variant.items())), each.weights, each.split), []
        ).append(each)
    same = ("task", "pair", "arm", "preset", "variant", "weights", "split")
    return [
        Pooled(
            **{name: getattr(members[0], name) for name in same},
            machine_key=members[0].environment.machine_key,
            runs=len(members),
            correlations=correlations(members),
        )
        for members in kinds.values()
    ]


def _paired_series(analysis: Gradients, quantity: str) -> PairedSeries:
    points = []
    for point in analysis.points:
        value = point.ratio.value if quantity == "ratio" else point.deviation
        if value is not None and point.share is not None and value > 0 and point.share > 0:
            points.append((point.step, value, point.share))
    step, first, second = np.array(points, dtype=np.float64).reshape(-1, 3).T
    return PairedSeries(step, first, second)


def _residual(step: Array, values: Array, degree: int) -> Array:
    """log ``values`` less their least-squares polynomial of ``degree`` in log ``step``; 0 where
    only rounding is left."""
    logs = np.log(values)
    time = np.log(step)
    # Centred and scaled: powers of log step are otherwise close to collinear.
    time = (time - time.mean()) / max(float(time.std()), np.finfo(np.float64).tiny)
    powers = np.vander(time, degree + 1)
    left: Array = logs - powers @ np.linalg.lstsq(powers, logs, rcond=None)[0]
    return (
        left
        if float(np.abs(left).max()) > _NOTHING * max(1.0, float(np.abs(logs).max()))
        else np.zeros_like(left)
    )


def _lag_one(runs: Sequence[Array]) -> float:
    """Autocorrelation between neighbouring points, over all runs."""
    products = sum(float(run[1:] @ run[:-1]) for run in runs)
    squares = sum(float(run @ run) for run in runs)
    return products / squares if squares > 0 else 0.0
