"""The ratio of both sides of a comparison, its bounds by Student's t, and the smallest slow-down
that it would have shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.stats import t as student

from equivbench.gate.samples import Samples, steps

TRIMMED_FROM = 8
"""From so many rounds on the least and the greatest are set aside (a tenth of them on either side,
one at least): what disturbed a single round then moves neither the ratio nor its bounds."""
FOUND = 0.95
"""How often a slow-down of the size that is called the power is found."""


@dataclass(frozen=True)
class RatioEstimate:
    """Candidate over baseline (inverted where higher is better)."""

    ratio: float
    error: float | None
    """Standard error of its logarithm; None: unknown."""
    freedom: float
    """Degrees of freedom of ``error``."""
    level: float
    """Of each bound by itself."""
    repeats: int
    """Rounds or seeds of the smaller side."""

    @property
    def margin(self) -> float | None:
        """How far the bounds are from the ratio, in logarithms."""
        if self.error is None:
            return None
        return _quantile(self.level, self.freedom) * self.error

    @property
    def low(self) -> float | None:
        """The lower bound; None: unknown."""
        return None if self.margin is None else self.ratio * math.exp(-self.margin)

    @property
    def high(self) -> float | None:
        """The upper bound; None: unknown."""
        return None if self.margin is None else self.ratio * math.exp(self.margin)

    def power(self, threshold: float) -> float | None:
        """The smallest relative slow-down that is found in 95 of 100 such comparisons: one that
        exceeds ``threshold`` and whose bound excludes none; None: unknown."""
        if self.margin is None or self.error is None:
            return None
        spare = _quantile(FOUND, self.freedom) * self.error
        return math.expm1(max(math.log1p(threshold), self.margin) + spare)


@lru_cache(maxsize=256)
def _quantile(level: float, freedom: float) -> float:
    """Of Student's distribution: all rounds of a suite have the same two."""
    return float(student.ppf(level, freedom))


@dataclass(frozen=True)
class _Middle:
    value: float
    variance: float | None
    """Of ``value``."""
    freedom: float


def estimate(baseline: Samples, candidate: Samples, level: float) -> RatioEstimate:
    """The ratio of both sides; one bound of the ratio is wrong in 1 - ``level`` of comparisons.

    Neighbouring rounds are compared each with each, seeds seed by seed; rounds without neighbours
    by their middles, whose variances add up. Rounds of one process do not show how processes
    differ: the side's ``spread`` is added.
    """
    sign = -1.0 if baseline.metric.direction == "higher" else 1.0
    trimmed = baseline.unit == "round"
    pairs = steps(baseline, candidate)
    if pairs is not None:
        terms = [_middle(pairs, trimmed)]
        hidden = 0.0
        repeats = len(pairs)
    else:
        sides = (candidate, baseline)
        terms = [_middle([side.level(index) for index in side.values], trimmed) for side in sides]
        terms[1] = _Middle(-terms[1].value, terms[1].variance, terms[1].freedom)
        hidden = sum(side.spread**2 for side in sides)
        repeats = min(len(side.values) for side in sides)
    ratio = math.exp(sign * sum(term.value for term in terms))
    known = [term.variance for term in terms if term.variance is not None]
    if len(known) < len(terms):
        return RatioEstimate(ratio, None, 0.0, level, repeats)
    variance = sum(known) + hidden
    # Welch and Satterthwaite; what is hidden is taken for known.
    weight = sum(
        each**2 / term.freedom for each, term in zip(known, terms, strict=True) if each > 0
    )
    freedom = variance**2 / weight if weight > 0 else math.inf
    return RatioEstimate(ratio, math.sqrt(variance), freedom, level, repeats)


def _middle(values: Sequence[float], trimmed: bool) -> _Middle:
    """The mean of ``values``, or the trimmed one with Yuen's variance (Biometrika 61, 1974)."""
    count = len(values)
    cut = max(1, count // 10) if trimmed and count >= TRIMMED_FROM else 0
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    kept = ordered[cut : count - cut]
    if count < 2:
        return _Middle(float(kept.mean()), None, 0.0)
    drawn_in = np.clip(ordered, kept[0], kept[-1])
    variance = float(np.var(drawn_in, ddof=1)) / (count * (1 - 2 * cut / count) ** 2)
    return _Middle(float(kept.mean()), variance, count - 2 * cut - 1)
