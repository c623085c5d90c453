"""How every number of the gap gets its interval: over seeds, test groups and timed blocks.

A quantity is a mean over seeds, and its error has several levels: other seeds would have trained
other networks, other test molecules would have given other errors, and one seed's step times were
taken from a few blocks. Their variances are added, with Student's t for their degrees of freedom
(:func:`student`); where seeds diverged, whose loss is infinite, stand the median and the sign test
(:func:`ranked`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]
Censored = Literal["above", "below"] | None

LEVEL = 0.95


@dataclass(frozen=True)
class Quantity:
    """``value`` with the 95% interval ``low`` to ``high``.

    ``censored`` says that the true value lies ``above`` or ``below``, and ``value`` is then the
    bound (None where there is not even a bound, as for the loss of a diverged arm). A None in
    ``low`` or ``high`` is an end that the data leave open. All None: not measured; the gap's
    ``reasons`` say why.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    censored: Censored = None

    def map(self, function: Callable[[float], float], *, falling: bool = False) -> Quantity:
        """The quantity under a monotone ``function``; ``falling`` turns the interval and the
        censoring round."""
        value, low, high = (
            None if number is None else function(number)
            for number in (self.value, self.low, self.high)
        )
        if not falling:
            return Quantity(value, low, high, self.censored)
        turned: dict[Censored, Censored] = {"above": "below", "below": "above", None: None}
        return Quantity(value, high, low, turned[self.censored])


@dataclass(frozen=True)
class Timed:
    """A quantity that depends on time: at steady state, and with the compile seconds of both arms
    counted."""

    steady: Quantity
    all_in: Quantity


UNKNOWN = Quantity()
UNTIMED = Timed(UNKNOWN, UNKNOWN)
LARGEST_LOG = math.log(sys.float_info.max)


@dataclass(frozen=True)
class Band:
    """Estimates at P points, each with its interval and the two-sided p-value of being zero.

    All are [P]; ends that nothing is known of are infinite, and a p-value is NaN where there is
    nothing to test with.
    """

    mid: Array
    low: Array
    high: Array
    p: Array

    def at(self, point: int) -> Band:
        """The band of one point."""
        here = slice(point, point + 1)
        return Band(self.mid[here], self.low[here], self.high[here], self.p[here])


@dataclass(frozen=True)
class Component:
    """A part of the variance [P] of an estimate, and the degrees of freedom it is known with."""

    variance: Array
    freedom: Array | float


def combined(parts: Sequence[Component]) -> tuple[Array, Array]:
    """The sum of the variances [P] of independent ``parts``, and its degrees of freedom [P].

    Those of Welch and Satterthwaite, (sum v)^2 / f = sum v^2 / freedom, with each v multiplied by
    (freedom + 1) / (freedom - 1), and by 8 where that is infinite. A variance from few degrees of
    freedom comes out too small more often than not; without the factor it then counts for too
    little, and intervals of three seeds and 60 test groups hold the truth in 92.3% of cases where
    with it 94.2 to 96.5% do, whatever the variances are.

    References
    ----------
    Satterthwaite, Biometrics Bulletin 2, 110 (1946); Welch, Biometrika 34, 28 (1947).
    """
    variance = spread = weight = np.zeros(1)
    for part in parts:
        few = np.asarray(part.freedom) < 2
        factor = np.where(few, 8.0, (part.freedom + 1) / np.where(few, 1.0, part.freedom - 1))
        variance = variance + part.variance
        weight = weight + factor * part.variance
        spread = spread + (factor * part.variance) ** 2 / part.freedom
    # Without any spread an interval is a point whatever the degrees of freedom.
    freedom = np.divide(weight**2, spread, out=np.ones_like(variance), where=spread > 0)
    return variance, freedom


def student(mid: Array, seeds: Array, *others: Component) -> Band:
    """Student's interval of an estimate whose error has several independent parts.

    ``mid`` +- t(f) sqrt(v), with the variance v and the degrees of freedom f of :func:`combined`.
    One seed, whose own spread nobody knows, adds no part; without any the interval is open.

    Parameters
    ----------
    mid
        [P], the estimate.
    seeds
        [S, P], the values of each seed, whose mean has the variance (variance between them) / S.
    others
        The further parts: test groups, timing.
    """
    count = len(seeds)
    parts = list(others)
    if count > 1:
        parts.append(Component(seeds.var(axis=0, ddof=1) / count, count - 1))
    if not parts:
        unknown = np.full_like(mid, np.inf)
        return Band(mid, -unknown, unknown, np.full_like(mid, np.nan))
    variance, freedom = combined(parts)
    error = np.sqrt(variance)
    half = special.stdtrit(freedom, 0.5 + LEVEL / 2) * error
    return Band(mid, mid - half, mid + half, _two_sided(mid, error, freedom))


def sum_of(first: Quantity, second: Quantity) -> Quantity:
    """The sum of two independent quantities that are never negative: each end is as far from the
    sum as the root of the squares of the distances of the two ends (MOVER).

    An end that one of them leaves open is open, but that nothing is below zero. Censored as the
    ``second`` is; UNKNOWN where either is not known.

    References
    ----------
    Zou & Donner, Statistics in Medicine 27, 1693 (2008).
    """
    if first.value is None or second.value is None:
        return UNKNOWN
    value = first.value + second.value
    down = [each.value - (each.low or 0.0) for each in (first, second) if each.value is not None]
    up = [
        math.inf if each.high is None else each.high - (each.value or 0.0)
        for each in (first, second)
    ]
    nothing_below = first.low is None and second.low is None
    high = value + math.hypot(*up)
    return Quantity(
        value,
        None if nothing_below else value - math.hypot(*down),
        high if math.isfinite(high) else None,
        second.censored,
    )


def group_part(influences: Array) -> Component:
    """The part of the variance that is due to the choice of the test groups, from how much each
    group moves the estimate: ``influences`` [G, P] (infinitesimal jackknife)."""
    count = len(influences)
    return Component(count / (count - 1) * (influences**2).sum(axis=0), count - 1)


def ranked(seeds: Array) -> Band:
    """The median over ``seeds`` [S, P], which may be infinite, with the interval and p-value of the
    sign test.

    The k-th smallest and the k-th largest of S values bracket the median with probability
    1 - 2 P(Binomial(S, 1/2) < k); where no k reaches the level, the interval is infinite.
    """
    count = len(seeds)
    ordered = np.sort(seeds, axis=0)
    with np.errstate(invalid="ignore"):
        mid = np.median(ordered, axis=0)  # NaN between -inf and +inf: nothing lies in the middle
    # The bare function, for scipy.stats takes most of a second to import.
    k = int((2 * special.bdtr(np.arange(count), count, 0.5) <= 1 - LEVEL).sum())
    unknown = np.full_like(mid, np.inf)
    low, high = (ordered[k - 1], ordered[count - k]) if k > 0 else (-unknown, unknown)
    above, below = (seeds > 0).sum(axis=0), (seeds < 0).sum(axis=0)
    p = np.minimum(1.0, 2 * special.bdtr(np.minimum(above, below), above + below, 0.5))
    return Band(mid, low, high, np.where(above + below > 0, p, 1.0))


def exponential(band: Band) -> Quantity:
    """The quantity whose logarithm ``band`` (one point) estimates; an infinite one, of diverged
    seeds, has no bound.

    An end of the interval that no float can hold is open: seeds of 1e-300 and 1e300 must not stop
    everybody's tables.
    """
    mid = float(band.mid[0])
    if math.isnan(mid):
        return UNKNOWN
    censored: Censored = None
    if abs(mid) >= LARGEST_LOG:
        censored = "above" if mid > 0 else "below"
    ends = (float(end[0]) for end in (band.mid, band.low, band.high))
    value, low, high = (math.exp(end) if abs(end) < LARGEST_LOG else None for end in ends)
    return Quantity(value, low, high, censored)


def plain(band: Band, least: float = -math.inf, most: float = math.inf) -> Quantity:
    """The quantity that ``band`` (one point) estimates; ends that are infinite are open.

    The truth is known to lie between ``least`` and ``most``, so the interval does; the estimate
    itself may lie a little outside, as that of a share at the numerical floor does.
    """
    mid, low, high = (float(end[0]) for end in (band.mid, band.low, band.high))
    return Quantity(
        mid if math.isfinite(mid) else None,
        max(low, min(least, mid)) if math.isfinite(low) else None,
        min(high, max(most, mid)) if math.isfinite(high) else None,
    )


def over_seeds(
    values: Sequence[float],
    *,
    geometric: bool = False,
    least: float = -math.inf,
    most: float = math.inf,
) -> Quantity:
    """The mean of ``values`` [S] with its Student interval, open with one seed, unknown with none.

    ``geometric``: mean and interval of the logarithms, for losses; a loss that is not positive has
    none, and the plain mean is taken then. ``least`` and ``most`` bound what can be: 0 and 1 for a
    share.
    """
    if not values:
        return UNKNOWN
    array = np.asarray(values, dtype=np.float64)
    if geometric and bool((array > 0).all()):
        return geometric_mean(np.log(array))
    return plain(student(array.mean(keepdims=True), array[:, None]), least, most)


def geometric_mean(logs: Array, *others: Component) -> Quantity:
    """exp of the mean of ``logs`` [S], with its Student interval."""
    return exponential(student(logs.mean(keepdims=True), logs[:, None], *others))


def _two_sided(mid: Array, error: Array, freedom: Array) -> Array:
    # By the bare functions, for scipy's distribution objects take a millisecond to make.
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.abs(mid) / error
    score = np.where((error == 0) & (mid == 0), 0.0, score)
    return np.asarray(2 * special.stdtr(freedom, -score), dtype=np.float64)
