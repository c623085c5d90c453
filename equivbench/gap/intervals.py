"""How every number of the gap gets its interval: over seeds, over test groups, or over both.

A quantity is a mean over seeds, and its error has two levels: other seeds would have trained other
networks, and other test molecules would have given other errors. Which estimator is used depends on
the number of seeds S:

- at most :data:`FEW_SEEDS`: Student's t, with the variances of both levels added (:func:`student`);
- more: percentiles of a bootstrap that draws seeds and test groups anew (:func:`percentile`);
- with diverged seeds, whose loss is infinite: the median and the sign test (:func:`ranked`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Array = NDArray[np.float64]
Censored = Literal["above", "below"] | None

LEVEL = 0.95
FEW_SEEDS = 10
"""Up to here Student's t is used: a bootstrap over so few seeds is too narrow."""
REPLICATES = 999


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
class Resampled:
    """What estimates over test groups drawn anew came to: ``values`` [R, P], from ``groups``
    groups."""

    values: Array
    groups: int


@lru_cache(maxsize=8)
def draw_groups(groups: int, replicates: int = REPLICATES) -> Array:
    """[1 + replicates, groups]: how often each test group is drawn; row 0 is the measured set,
    every group once.

    The draws are the same for the same number of groups, so both arms and all seeds share them and
    results repeat; they are kept, for they take longer to draw than to use, and cannot be written
    to.
    """
    generator = np.random.default_rng([groups, 0])
    drawn = generator.multinomial(groups, np.full(groups, 1.0 / groups), size=replicates)
    draws = np.concatenate([np.ones((1, groups)), drawn.astype(np.float64)])
    draws.flags.writeable = False
    return draws


def draw_seeds(seeds: int, replicates: int) -> NDArray[np.intp]:
    """[1 + replicates, seeds]: which seeds make up each replicate; row 0 is every seed once."""
    generator = np.random.default_rng([seeds, 1])
    drawn = generator.integers(0, seeds, size=(replicates, seeds))
    return np.concatenate([np.arange(seeds)[None], drawn]).astype(np.intp)


def interval(fits: Array, seeds: Array, groups: int) -> Band:
    """The estimate ``fits[0]`` with the interval that its replicates and its seeds give it.

    Parameters
    ----------
    fits
        [R, P]: row 0 is what was measured, the other rows have test groups (and, above
        :data:`FEW_SEEDS`, seeds) drawn anew.
    seeds
        [S, P]: the values of each seed.
    groups
        The number of test groups that were drawn from; 0 without replicates.
    """
    if len(seeds) > FEW_SEEDS:
        return percentile(fits[0], len(seeds), fits[1:])
    return student(fits[0], seeds, Resampled(fits[1:], groups) if groups > 0 else None)


def student(mid: Array, seeds: Array, resampled: Resampled | None) -> Band:
    """Student's interval with the variances of two levels added.

    ``mid`` +- t(f) sqrt(b + w), where b = (variance between the S seeds) / S, w is the bootstrap
    variance over G test groups, and the degrees of freedom are those of Welch and Satterthwaite,
    f = (b + w)^2 / (b^2 / (S - 1) + w^2 / (G - 1)): S - 1 where seeds are what varies, G - 1 where
    test molecules are, or with one seed, whose own spread nobody knows.

    Parameters
    ----------
    mid
        [P], the estimate.
    seeds
        [S, P], the values of each seed.
    resampled
        The estimate over test groups drawn anew; None without groups.

    References
    ----------
    Satterthwaite, Biometrics Bulletin 2, 110 (1946); Welch, Biometrika 34, 28 (1947).
    """
    count = len(seeds)
    if count == 1 and resampled is None:
        unknown = np.full_like(mid, np.inf)
        return Band(mid, -unknown, unknown, np.full_like(mid, np.nan))
    between = within = np.zeros_like(mid)
    spread = np.zeros_like(mid)
    if count > 1:
        between = seeds.var(axis=0, ddof=1) / count
        spread = between**2 / (count - 1)
    if resampled is not None:
        within = resampled.values.var(axis=0, ddof=1)
        spread = spread + within**2 / (resampled.groups - 1)
    error = np.sqrt(between + within)
    # Without any spread the interval is a point whatever the degrees of freedom.
    freedom = np.divide((between + within) ** 2, spread, out=np.ones_like(mid), where=spread > 0)
    half = special.stdtrit(freedom, 0.5 + LEVEL / 2) * error
    return Band(mid, mid - half, mid + half, _two_sided(mid, error, freedom))


def percentile(mid: Array, seeds: int, replicates: Array) -> Band:
    """``mid`` [P] with the percentiles of ``replicates`` [R, P], in which ``seeds`` seeds and the
    test groups were both drawn anew."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail], axis=0, method="inverted_cdf")
    p = _two_sided(mid, replicates.std(axis=0, ddof=1), np.full_like(mid, seeds - 1))
    return Band(mid, np.minimum(low, mid), np.maximum(high, mid), p)


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
    k = int(stats.binom.ppf((1 - LEVEL) / 2, count, 0.5))
    while k > 0 and 2 * stats.binom.cdf(k - 1, count, 0.5) > 1 - LEVEL:
        k -= 1
    unknown = np.full_like(mid, np.inf)
    low, high = (ordered[k - 1], ordered[count - k]) if k > 0 else (-unknown, unknown)
    above, below = (seeds > 0).sum(axis=0), (seeds < 0).sum(axis=0)
    p = np.minimum(1.0, 2 * stats.binom.cdf(np.minimum(above, below), above + below, 0.5))
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


def plain(band: Band) -> Quantity:
    """The quantity that ``band`` (one point) estimates; ends that are infinite are open."""
    value, low, high = (
        float(end[0]) if math.isfinite(end[0]) else None for end in (band.mid, band.low, band.high)
    )
    return Quantity(value, low, high)


def over_seeds(values: Sequence[float], *, geometric: bool = False) -> Quantity:
    """The mean of ``values`` [S] with its Student interval, open with one seed, unknown with none.

    ``geometric``: mean and interval of the logarithms, for losses; a loss that is not positive has
    none, and the plain mean is taken then.
    """
    if not values:
        return UNKNOWN
    array = np.asarray(values, dtype=np.float64)
    if geometric and bool((array > 0).all()):
        return geometric_mean(np.log(array))
    return plain(student(array.mean(keepdims=True), array[:, None], None))


def geometric_mean(logs: Array) -> Quantity:
    """exp of the mean of ``logs`` [S], with its Student interval."""
    return exponential(student(logs.mean(keepdims=True), logs[:, None], None))


def _two_sided(mid: Array, error: Array, freedom: Array) -> Array:
    # By the bare functions, for scipy's distribution objects take a millisecond to make.
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.abs(mid) / error
    score = np.where((error == 0) & (mid == 0), 0.0, score)
    return np.asarray(2 * special.stdtr(freedom, -score), dtype=np.float64)
