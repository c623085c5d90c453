"""The judgement of one benchmark: the ratio of both sides, its bootstrap bounds, and the verdict
that follows.

``ratio`` above 1 is worse, whatever the metric's direction. A change counts only where the ratio
exceeds both the threshold and three times the noise floor, the 99% bound over rounds (or seeds) is
on the same side of 1, and the difference is one that matters at all. What exceeds the threshold
without all of that is inconclusive, never unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from equivbench.gate.samples import Samples, steps

Array = NDArray[np.float64]
GateVerdict = Literal[
    "regression",
    "improvement",
    "unchanged",
    "inconclusive",
    "missing",
    "failed",
    "incomparable",
    "dirty",
    "new",
]

LEVEL = 0.99
"""Of each bound by itself: one change in a hundred that lies below the lower bound is the
noise's."""
REPLICATES = 9_999
FLOORS = 3.0
"""Noise floors that a change must exceed."""
MIN_ROUNDS = 4
"""Fewer rounds cannot give a 99% bound: of 3 rounds one draw in 27 is all one round, of 4 one in
256."""
BLIND = 2.0
"""Thresholds of slow-down that ``unchanged`` must be able to exclude."""


@dataclass(frozen=True)
class RatioEstimate:
    """Candidate over baseline (inverted where higher is better) with its 99% bounds, each by
    itself; None: unknown."""

    ratio: float
    low: float | None
    high: float | None
    pairs: int
    """Rounds or seeds of the smaller side."""


def estimate(baseline: Samples, candidate: Samples) -> RatioEstimate:
    """The ratio of both sides; the bounds resample whole rounds or seeds.

    Rounds: the median of the ratios of neighbouring rounds, or the ratio of medians where there are
    no neighbours; a round that met a disturbance then counts for no more than any other. Seeds: the
    geometric mean of the ratios, seed by seed.
    """
    sign = -1.0 if baseline.metric.direction == "higher" else 1.0
    pairs = steps(baseline, candidate)
    middle = np.mean if baseline.unit == "seed" else np.median
    if pairs is not None:
        return _interval([sign * np.array(pairs)], middle)
    levels = [
        np.array([side.level(index) for index in sorted(side.values)])
        for side in (candidate, baseline)
    ]
    return _interval([sign * levels[0], -sign * levels[1]], middle)


def _interval(terms: Sequence[Array], middle: Callable[..., Any]) -> RatioEstimate:
    """Of the sum of the middles of all ``terms``, each resampled apart."""
    count = min(len(term) for term in terms)
    mid = float(sum(middle(term) for term in terms))
    if count < 2:
        return RatioEstimate(math.exp(mid), None, None, count)
    # The same number of rounds on both sides must not draw the same rounds: each term takes its own
    # part of the draws.
    replicates = np.zeros(REPLICATES)
    for place, term in enumerate(terms):
        generator = np.random.default_rng([len(term), 1])
        draws = generator.integers(0, len(term), size=(len(terms) * REPLICATES, len(term)))
        replicates += middle(term[draws[place :: len(terms)]], axis=-1)
    low, high = np.quantile(replicates, [1 - LEVEL, LEVEL], method="inverted_cdf")
    return RatioEstimate(
        math.exp(mid), math.exp(min(float(low), mid)), math.exp(max(float(high), mid)), count
    )


def judge(
    baseline: Samples, candidate: Samples, threshold: float, floor: float
) -> tuple[GateVerdict, str, RatioEstimate]:
    """Verdict, its reason in one clause, and the figures, for two measurements without defect under
    one context.

    A change must exceed the relative ``threshold`` and three times ``floor``, the noise of the
    ratio.
    """
    found = estimate(baseline, candidate)
    return *_verdict(baseline, candidate, threshold, floor, found), found


def _verdict(
    baseline: Samples, candidate: Samples, threshold: float, floor: float, found: RatioEstimate
) -> tuple[GateVerdict, str]:
    tolerance = max(threshold, FLOORS * floor)
    worse = found.ratio > 1
    change = found.ratio - 1 if worse else 1 / found.ratio - 1
    within = change <= threshold
    if not within and abs(centre(candidate) - centre(baseline)) < baseline.resolution:
        least = f"{baseline.resolution:g} {baseline.metric.unit}"
        return "unchanged", f"the difference is below {least}, which does not matter"
    if baseline.unit == "round" and found.pairs < MIN_ROUNDS:
        return "inconclusive", (
            f"{found.pairs} rounds are too few to judge timings by; measure at least {MIN_ROUNDS}"
        )
    if within:
        if found.high is not None and found.high > 1 + BLIND * tolerance:
            excluded = f"{found.high - 1:+.1%} for the worse cannot be excluded"
            return "inconclusive", f"a change of {excluded}"
        return "unchanged", f"within {percent(threshold)} of the baseline"
    if found.low is None or found.high is None:
        if not (baseline.deterministic and candidate.deterministic):
            return "inconclusive", "one seed says nothing about the noise of training; run more"
    elif found.low <= 1 <= found.high:
        return "inconclusive", f"the {LEVEL:.0%} bounds hold no change"
    if change <= tolerance:
        floors = f"{FLOORS:g} noise floors of {percent(floor)}"
        return "inconclusive", f"beyond the threshold, within {floors}"
    clause = f"by more than {percent(tolerance)}, and the {LEVEL:.0%} bound agrees"
    return ("regression", f"worse {clause}") if worse else ("improvement", f"better {clause}")


def percent(fraction: float) -> str:
    """``0.05`` as ``5%``, ``0.0234`` as ``2.3%``."""
    return f"{100 * fraction:.2g}%" if fraction < 1 else f"{100 * fraction:.0f}%"


def shown(measurement: Samples) -> float:
    """What a report shows of the values: their :func:`centre`, or their plain mean where all lie
    under the clip."""
    values = list(measurement.values.values())
    return (
        centre(measurement) if max(values) > measurement.clip else math.fsum(values) / len(values)
    )


def centre(measurement: Samples) -> float:
    """Median over rounds or geometric mean over seeds, clipped from below."""
    levels = np.array([measurement.level(index) for index in measurement.values])
    return math.exp(float(np.mean(levels) if measurement.unit == "seed" else np.median(levels)))
