"""The judgement of one benchmark: the verdict that follows from the ratio of both sides.

A ratio above 1 is worse, whatever the metric's direction. A change counts only where it exceeds
the threshold and the bound excludes that there is none. ``unchanged`` means that a slow-down of the
stated power can be excluded; what is neither is inconclusive.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from equivbench.counted import counted
from equivbench.gate.estimate import RatioEstimate, estimate
from equivbench.gate.samples import Samples

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

FALSE_ALARMS = 1 / 200
"""In how many comparisons of unchanged code, whole suites of timings, one benchmark or more is
called slower."""
LOOKS = 2
"""How often a benchmark may be judged before it stands: noisy ones get more rounds."""
SEED_LEVEL = 0.99
"""Of each bound of a metric that repeats by seed."""
MIN_ROUNDS = 4
"""Fewer rounds show no noise worth the name, and decide nothing."""
MOST_BLIND = 0.2
"""A benchmark that could not have shown a slow-down by this much, or by twice the threshold, is
not unchanged."""


def level_of(unit: str, benchmarks: int) -> float:
    """The level of each bound where ``benchmarks`` are judged together: timings share the false
    alarms of their suite."""
    if unit == "seed":
        return SEED_LEVEL
    return 1 - FALSE_ALARMS / (LOOKS * max(1, benchmarks))


def judge(
    baseline: Samples, candidate: Samples, threshold: float, level: float
) -> tuple[GateVerdict, str, RatioEstimate]:
    """Verdict, its reason in one clause, and the figures, for two measurements without defect under
    one context. A change must exceed the relative ``threshold``; ``level`` is that of each bound.
    """
    found = estimate(baseline, candidate, level)
    return *_verdict(baseline, candidate, threshold, found), found


def useless(side: Samples) -> str | None:
    """Why ``side`` can decide nothing whatever it is compared with; None if it can."""
    if side.unit == "round" and len(side.values) < MIN_ROUNDS:
        count = counted(len(side.values), "round")
        return f"{count} can never decide; measure at least {MIN_ROUNDS}"
    if side.unit == "seed" and len(side.values) < 2 and not side.deterministic:
        return (
            "one seed under a budget in seconds can never show the noise of training; run more "
            "seeds, or a budget in steps"
        )
    return None


def _verdict(
    baseline: Samples, candidate: Samples, threshold: float, found: RatioEstimate
) -> tuple[GateVerdict, str]:
    worse = found.ratio > 1
    change = found.ratio - 1 if worse else 1 / found.ratio - 1
    within = change <= threshold
    if not within and abs(centre(candidate) - centre(baseline)) < baseline.resolution:
        least = f"{baseline.resolution:g} {baseline.metric.unit}"
        return "unchanged", f"the difference is below {least}, which does not matter"
    power = found.power(threshold)
    if within:
        if power is None or found.high is None:
            return "unchanged", f"within {percent(threshold)} of the baseline"
        if power > max(MOST_BLIND, 2 * threshold):
            return "inconclusive", f"only a change of {power:+.0%} or more would have been found"
        if found.high >= 1 + power:
            return "inconclusive", f"{found.high - 1:+.1%} for the worse cannot be excluded"
        return "unchanged", f"within {percent(threshold)} of the baseline"
    if found.low is not None and found.high is not None and found.low <= 1 <= found.high:
        return "inconclusive", f"the {found.level:.4%} bounds do not exclude that nothing changed"
    clause = f"by more than {percent(threshold)}, and the bound agrees"
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
