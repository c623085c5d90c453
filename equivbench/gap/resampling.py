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

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Array = NDArray[np.float64]
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


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given (Holm 1979)."""
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda each: p_values[each])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def _two_sided(mid: Array, error: Array, freedom: Array) -> Array:
    """The p-values of Student's test; by the bare functions, for scipy's distribution objects take
    a millisecond to make."""
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.abs(mid) / error
    score = np.where((error == 0) & (mid == 0), 0.0, score)
    return np.asarray(2 * special.stdtr(freedom, -score), dtype=np.float64)
