"""How long runs of one arm take to a fixed loss, and whether one code's runs take less time than
another's.

The loss of a run's annealed weights over the seconds of its rungs is fitted by the non-increasing
curve nearest to it, on logarithmic axes, as for the gap; the time to a loss is where that curve
comes down to it for good. Nothing is extrapolated: of a run that does not come down to it, or that
was below it at its first rung, a bound is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from equivbench.gap.curves import decreasing, last_crossing
from equivbench.gap.intervals import UNKNOWN, Censored, Quantity, exponential, student


@dataclass(frozen=True)
class CostedLoss:
    """A loss, and what it took to reach it."""

    seconds: float
    """Of training and data."""
    steps: float
    samples: float
    loss: float
    """Board metric of the annealed weights."""


@dataclass(frozen=True)
class TimeToLoss:
    """What one run took to come down to a loss. ``censored``: it took more (``above``), or less
    (``below``), and the numbers are those of its last, or its first, rung."""

    seconds: float
    steps: float
    samples: float
    censored: Censored = None


@dataclass(frozen=True)
class TimesCompared:
    """Whether one code takes less time than another, seed by seed."""

    speed_up: Quantity
    """Seconds of the other over those of this one: geometric mean, with its Student interval over
    seeds. Censored above where some of the other's runs did not come down to the loss."""
    p: float | None
    """One-sided, of the paired test that this code takes no less time; None where nothing can be
    tested."""
    reason: str | None
    """Why ``p`` is None."""


def time_to_loss(points: Sequence[CostedLoss], loss: float) -> TimeToLoss | None:
    """What the run with these ``points``, in order of their seconds, took to ``loss``; None without
    a point that has a place on logarithmic axes."""
    usable = [each for each in points if min(each.seconds, each.steps, each.samples, each.loss) > 0]
    if not usable:
        return None
    log_losses = np.log([each.loss for each in usable])
    costs = np.log([[each.seconds, each.steps, each.samples] for each in usable]).T
    where, censored = last_crossing(costs[0], decreasing(log_losses) - math.log(loss))
    seconds, steps, samples = (math.exp(np.interp(where, costs[0], each)) for each in costs)
    return TimeToLoss(seconds, steps, samples, censored)


def mean_time(values: Sequence[float], censored: Sequence[Censored]) -> Quantity:
    """The geometric mean of what each run took, with its Student interval over seeds.

    With bounds among ``values`` it is a bound too, without an interval; UNKNOWN with none at all,
    and where some are bounds from above and some from below.
    """
    sides = set(censored) - {None}
    if not values or len(sides) > 1:
        return UNKNOWN
    logs = np.log(np.asarray(values, dtype=np.float64))
    found = exponential(student(logs.mean(keepdims=True), logs[:, None]))
    return Quantity(found.value, censored=sides.pop()) if sides else found


def compare_times(these: Sequence[TimeToLoss], others: Sequence[TimeToLoss]) -> TimesCompared:
    """Whether ``these`` [S] are shorter than the ``others`` [S], paired by seed.

    Student's paired test on the logarithms. A bound takes the place of a time where it makes the
    difference smaller, so that the test stays valid: the end of a run of the other code that did
    not come down to the loss, the first rung of a run of this code that was below it there.
    """
    if any(each.censored == "above" for each in these):
        return TimesCompared(UNKNOWN, None, "not every run came down to the target loss")
    if any(each.censored == "below" for each in others):
        reason = "a run of the other code was below the target loss at its first rung"
        return TimesCompared(UNKNOWN, None, reason)
    if not these:
        return TimesCompared(UNKNOWN, None, "no seed was run by both")
    taken = [[each.seconds for each in one] for one in (others, these)]
    logs = np.subtract(*np.log(taken))
    band = student(logs.mean(keepdims=True), logs[:, None])
    found = exponential(band)
    if any(each.censored is not None for each in (*these, *others)):
        found = Quantity(found.value, found.low, None, "above")
    if len(logs) < 2:
        return TimesCompared(found, None, "one seed tells nothing of how much seeds differ")
    half = float(band.p[0]) / 2
    return TimesCompared(found, half if band.mid[0] > 0 else 1 - half, None)
