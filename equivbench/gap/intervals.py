"""Intervals over two levels, seeds and test groups, for quantities that are means over seeds; and
Holm's correction.

Few seeds (at most ``FEW_SEEDS``): Student, variance = b + w with b = (variance between S seeds) / S
and w = the bootstrap variance over G test groups, at (b + w)^2 / (b^2 / (S - 1) + w^2 / (G - 1))
degrees of freedom (Welch and Satterthwaite): S - 1 where seeds are what varies; G - 1 where test
molecules are, or with one seed, whose own spread nobody knows. More seeds: percentiles of a
bootstrap that draws seeds and test groups anew. With infinite values (diverged seeds): median and
order statistics over seeds; bounds that so few seeds cannot give are infinite.
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


REPLICATES = 999


@dataclass(frozen=True)
class Band:
    """An estimate with its interval at each of P points. Unknown or unlimited bounds are infinite;
    ``p`` is two-sided against zero and NaN where there is nothing to test with."""

    mid: Array
    low: Array
    high: Array
    p: Array


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


@dataclass(frozen=True)
class Resampled:
    """What estimates over test groups drawn anew came to: ``values`` [R, P], from ``groups``
    groups."""

    values: Array
    groups: int


def student(mid: Array, seeds: Array, resampled: Resampled | None) -> Band:
    """``mid`` [P] with ``seeds`` [S, P] (spread between seeds) and ``resampled`` (spread over test
    groups)."""
    count = len(seeds)
    between = seeds.var(axis=0, ddof=1) / count if count > 1 else np.zeros_like(mid)
    within = np.zeros_like(mid) if resampled is None else resampled.values.var(axis=0, ddof=1)
    if count == 1 and resampled is None:
        unknown = np.full_like(mid, np.inf)
        return Band(mid, -unknown, unknown, np.full_like(mid, np.nan))
    error = np.sqrt(between + within)
    spread = between**2 / max(count - 1, 1) + (
        0.0 if resampled is None else within**2 / (resampled.groups - 1)
    )
    # Without any spread the interval is a point whatever the degrees of freedom.
    freedom = np.divide((between + within) ** 2, spread, out=np.ones_like(mid), where=spread > 0)
    half = special.stdtrit(freedom, 0.5 + LEVEL / 2) * error
    return Band(mid, mid - half, mid + half, _two_sided(mid, error, freedom))


def percentile(mid: Array, seeds: int, replicates: Array) -> Band:
    """``mid`` [P] with the percentiles of ``replicates`` [R, P], in which seeds and groups were
    both drawn anew."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail], axis=0, method="inverted_cdf")
    p = _two_sided(mid, replicates.std(axis=0, ddof=1), np.full_like(mid, seeds - 1))
    return Band(mid, np.minimum(low, mid), np.maximum(high, mid), p)


def ranked(seeds: Array) -> Band:
    """The median over ``seeds`` [S, P], which may be infinite, with the interval and p-value of the
    sign test."""
    count = len(seeds)
    ordered = np.sort(seeds, axis=0)
    with np.errstate(invalid="ignore"):
        mid = np.median(ordered, axis=0)  # NaN between -inf and +inf: nothing lies in the middle
    # The k-th smallest and largest of S bracket the median with probability 1 - 2 P(Binomial(S,
    # 1/2) < k).
    k = int(stats.binom.ppf((1 - LEVEL) / 2, count, 0.5))
    while k > 0 and 2 * stats.binom.cdf(k - 1, count, 0.5) > 1 - LEVEL:
        k -= 1
    unknown = np.full_like(mid, np.inf)
    low, high = (ordered[k - 1], ordered[count - k]) if k > 0 else (-unknown, unknown)
    above, below = (seeds > 0).sum(axis=0), (seeds < 0).sum(axis=0)
    p = np.minimum(1.0, 2 * stats.binom.cdf(np.minimum(above, below), above + below, 0.5))
    return Band(mid, low, high, np.where(above + below > 0, p, 1.0))


def _two_sided(mid: Array, error: Array, freedom: Array) -> Array:
    """The p-values of Student's test; by the bare functions, for scipy's distribution objects take
    a millisecond to make."""
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.abs(mid) / error
    score = np.where((error == 0) & (mid == 0), 0.0, score)
    return np.asarray(2 * special.stdtr(freedom, -score), dtype=np.float64)


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
            None if each is None else function(each) for each in (self.value, self.low, self.high)
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


LARGEST_LOG = math.log(sys.float_info.max)


UNTIMED = Timed(UNKNOWN, UNKNOWN)


def exponential(band: Band) -> Quantity:
    """The quantity whose logarithm ``band`` (one point) estimates; an infinite one, of diverged
    seeds, has no bound.

    An end of the interval that no float can hold is open: seeds of 1e-300 and 1e300 must not stop
    everybody's tables.
    """
    mid = float(band.mid[0])
    if math.isnan(mid):
        return UNKNOWN
    censored: Censored = None if abs(mid) < LARGEST_LOG else ("above" if mid > 0 else "below")
    ends = (float(each[0]) for each in (band.mid, band.low, band.high))
    value, low, high = (math.exp(end) if abs(end) < LARGEST_LOG else None for end in ends)
    return Quantity(value, low, high, censored)


def plain(band: Band) -> Quantity:
    """The quantity that ``band`` (one point) estimates; ends that are infinite are open."""
    value, low, high = (
        float(each[0]) if math.isfinite(each[0]) else None
        for each in (band.mid, band.low, band.high)
    )
    return Quantity(value, low, high)


def interval(fits: Array, seeds: Array, groups: int) -> Band:
    """The first row of ``fits`` [R, P], with the interval that the other rows and the ``seeds`` [S,
    P] give it."""
    if len(seeds) > FEW_SEEDS:
        return percentile(fits[0], len(seeds), fits[1:])
    return student(fits[0], seeds, Resampled(fits[1:], groups) if groups > 0 else None)


def over_seeds(values: Sequence[float], *, geometric: bool = False) -> Quantity:
    """The mean of ``values`` [seeds] with its 95% Student interval, open with one seed, unknown
    with none.

    ``geometric``: mean and interval of the logarithms, for losses; a loss that is not positive has
    none, and the plain mean is taken then.
    """
    if not values:
        return UNKNOWN
    array = np.asarray(values, dtype=np.float64)
    logarithmic = geometric and bool((array > 0).all())
    each = np.log(array) if logarithmic else array
    band = student(each.mean(keepdims=True), each[:, None], None)
    return exponential(band) if logarithmic else plain(band)
