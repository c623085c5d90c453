"""The steps, and the speed-up, at which one arm reaches the other's final loss.

Each seed has its own curve through its annealed results. With the other arm's n_o steps at its
budget, the seed's ratio of step times rho (this arm over the other) and a speed-up sigma,

    d(sigma) = log L(sigma n_o / rho) - log L_o(n_o),

seed by seed. The break-even speed-up is where the mean over seeds is zero, and its interval is the
set of sigma at which the test that it is zero does not reject. Without rho the same gives the
sample efficiency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equivbench.gap.curves import SeedCurve, curve_of, last_crossing
from equivbench.gap.finals import shared_groups
from equivbench.gap.intervals import UNKNOWN, Band, Component, Quantity, group_part, ranked, student
from equivbench.gap.pairing import ArmRun, MatchedRuns
from equivbench.gap.timing import PairedTimes

Array = NDArray[np.float64]
POINTS = 129
"""Speed-ups at which the test is made, beside those of the curves' own points; evenly spaced in the
logarithm, with straight lines between them."""


@dataclass(frozen=True)
class BreakEven:
    """``efficiency``: steps to the other arm's loss over its steps; ``speed_up``: s*, UNKNOWN
    without step times."""

    efficiency: Quantity
    speed_up: Quantity


@dataclass(frozen=True)
class SeedTie:
    """What one seed says: ``curve`` of this arm (None if it diverged), and where the other arm
    ended."""

    curve: SeedCurve | None
    other: SeedCurve | None
    """Its last point alone, at the steps of its budget."""


def break_even(runs: MatchedRuns, arm: str, times: PairedTimes | str) -> BreakEven:
    """Where the curve of ``arm`` comes down to the other's loss; ``times`` are those of ``arm``
    over the other."""
    ties = seed_ties(runs, arm)
    efficiency = _crossing(ties, np.zeros(len(ties))) if ties else UNKNOWN
    if isinstance(times, str) or efficiency == UNKNOWN:
        return BreakEven(efficiency, UNKNOWN)
    speed = times.speed.value
    assert speed is not None
    spread = times.log_ratios - times.log_ratios.mean()
    timed = _crossing(ties, spread, times.blocks).map(lambda ratio: ratio * speed)
    value = None if efficiency.value is None else efficiency.value * speed
    return BreakEven(
        efficiency,
        Quantity(
            value,
            # The mean of the products is not quite the product of the means.
            None if timed.low is None or value is None else min(timed.low, value),
            None if timed.high is None or value is None else max(timed.high, value),
            efficiency.censored,
        ),
    )


def seed_ties(runs: MatchedRuns, arm: str) -> list[SeedTie]:
    """Those of each seed, with test groups if all evaluations share them; none where a finished run
    was not evaluated on the part of the test set that rungs are read on."""
    this = runs.arms[arm]
    (other,) = (own for name, own in runs.arms.items() if name != arm)
    longer = [run.longer is not None for run in this if not run.diverged]
    if not all(longer):
        # The mean over seeds could not be followed beyond where the first of them ends.
        this = tuple(ArmRun(run.record) for run in this)
    results = [[] if run.diverged else run.results() for run in this]
    ends = [[] if run.diverged else ArmRun(run.record).results()[-1:] for run in other]
    if any(
        not (points or run.diverged)
        for run, points in zip((*this, *other), (*results, *ends), strict=True)
    ):
        return []
    tests = [result.test for each in (*results, *ends) for result in each]
    grouped = shared_groups(tests)
    return [
        SeedTie(
            curve_of(points, grouped=grouped).non_increasing() if points else None,
            curve_of(end, grouped=grouped) if end else None,
        )
        for points, end in zip(results, ends, strict=True)
    ]


def _crossing(ties: Sequence[SeedTie], spread: Array, blocks: Component | None = None) -> Quantity:
    """The factor on the other arm's steps at which the mean difference is zero, for seeds whose
    steps take exp(``spread``) [S] times as long as the mean's."""
    whole = [
        (tie.curve, tie.other, shift - tie.other.log_steps[0])
        for tie, shift in zip(ties, spread, strict=True)
        if tie.curve is not None and tie.other is not None
    ]
    # A seed that both arms failed says nothing about which is better.
    lost = [
        np.inf if tie.curve is None else -np.inf
        for tie in ties
        if (tie.curve is None) != (tie.other is None)
    ]
    if not whole:
        alike = len(set(lost)) == 1
        return Quantity(censored="above" if lost[0] > 0 else "below") if alike else UNKNOWN
    places = [curve.log_steps + shift for curve, _, shift in whole]
    first, last = (float(np.mean([place[end] for place in places])) for end in (0, -1))
    own = np.concatenate(places)
    grid = np.unique(
        np.concatenate([np.linspace(first, last, POINTS), own[(own > first) & (own < last)]])
    )

    def difference(log_factors: Array) -> tuple[Array, Array]:
        """[S, P] of each seed, and [P, G] of each group's influence on their mean."""
        seeds, influences = [], []
        for curve, other, shift in whole:
            log_loss, influence = curve.at(log_factors - shift)
            seeds.append(log_loss - other.log_loss)
            influences.append(influence - other.influence)
        return np.array(seeds), np.mean(influences, axis=0)

    seeds, influence = difference(grid)
    if lost:
        band = ranked(np.concatenate([seeds, np.broadcast_to(np.c_[lost], (len(lost), len(grid)))]))
    else:
        parts = []
        if influence.size:
            parts.append(group_part(influence.T))
        if blocks is not None:
            error = float(np.sqrt(blocks.variance[0]))
            moved = difference(grid + error)[0][0] - difference(grid - error)[0][0]
            parts.append(Component((moved / 2) ** 2, blocks.freedom))
        band = student(seeds.mean(axis=0), seeds, *parts)
    return _zero(grid, band)


def _zero(grid: Array, band: Band) -> Quantity:
    """exp of the crossing of ``band`` with zero; the widest interval where the band's ends are not
    monotone."""
    if np.isnan(band.mid).any():
        return UNKNOWN
    value, censored = last_crossing(grid, band.mid)
    low, low_censored = last_crossing(grid, np.minimum.accumulate(band.low))
    high, high_censored = last_crossing(grid, np.maximum.accumulate(band.high[::-1])[::-1])
    return Quantity(
        value,
        None if low_censored == "below" else low,
        None if high_censored == "above" else high,
        censored,
    ).map(lambda log_factor: float(np.exp(log_factor)))
