"""How the loss falls with the budget within a run: a power law through the last decade of each
arm's curve, and what it implies.

Where the same pair was run at several budgets, :mod:`equivbench.gap.power_laws` fits those instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from equivbench.gap.arm_curve import ArmCurve
from equivbench.gap.breakeven import CurvePair
from equivbench.gap.intervals import LEVEL, Band, Quantity, interval, plain
from equivbench.gap.leads import POINTS, SignChange, coverage, lead_changes
from equivbench.gap.pairing import ArmRun, MatchedRuns

ENOUGH = 3
"""Budgets from which a slope has an interval (two points leave no residual)."""


@dataclass(frozen=True)
class PowerLaw:
    """loss = ``prefactor`` * budget ** -``exponent``, with the 95% interval of the exponent."""

    exponent: float
    low: float
    high: float
    prefactor: float
    budgets: list[float]


def power_law(budgets: Sequence[float], losses: Sequence[float]) -> PowerLaw:
    """Least squares of log loss on log budget, Student interval with len - 2 degrees of freedom.

    Raises ``ValueError`` below three different budgets.
    """
    if len(set(budgets)) < ENOUGH:
        raise ValueError(
            f"a scaling fit needs {ENOUGH} different budgets, got {sorted(set(budgets))}"
        )
    fit = stats.linregress(np.log(budgets), np.log(losses))
    half = float(stats.t.ppf(0.5 + LEVEL / 2, len(budgets) - 2) * fit.stderr)
    exponent = -float(fit.slope)
    return PowerLaw(
        exponent, exponent - half, exponent + half, math.exp(float(fit.intercept)), sorted(budgets)
    )


Array = NDArray[np.float64]


DECADE = math.log(10.0)
"""The later part of a curve that is fitted, and how far beyond its end a fit is followed, in log
seconds."""


STRAIGHT = 0.1
"""A change of the ratio's exponent over the part, as a fraction of the exponent, below which the
ratio is a power law for our purpose even where the intervals are narrow enough to see it bend."""


@dataclass(frozen=True)
class PowerLawFit:
    """An arm's loss ~ seconds ** -``exponent`` over the later part of its curve."""

    exponent: Quantity
    bend: Quantity
    """The exponent at the end of the part minus that at its start, by a parabola; zero for a power
    law."""
    evaluations: int
    """Fewest evaluations of a seed within the part."""


@dataclass(frozen=True)
class CurveScaling:
    """The fits of both arms over budgets of ``since`` to ``until`` seconds, compilation left out.

    ``extrapolated`` is where the fits, followed beyond the measured range, say that the lead
    changes hands: a ``SignChange`` in log seconds, or None with the ``reason``. It is no measurement.
    """

    since: float
    until: float
    equivariant: PowerLawFit
    augmented: PowerLawFit
    extrapolated: SignChange | None
    reason: str | None


def fit_within_run(contest: CurvePair, comparison: MatchedRuns) -> CurveScaling | str:
    """The fits over the last decade of the budgets that both arms cover, or in words why there are
    none.

    Least squares of log loss on log seconds at evenly spaced log budgets, a linear function of the
    curve, so that the interval comes from the same seeds and test groups as that of every other
    quantity of the gap. It covers their noise, not that the loss may be no power law; ``bend``
    shows that.
    """
    covered = coverage(contest)
    if covered is None:
        return "an arm has no curve or no step time"
    if not (contest.chaser.finished.all() and contest.target.finished.all()):
        return "a seed diverged"
    since, until = max(covered[0], covered[1] - DECADE), covered[1]
    sides, runs = (contest.chaser, contest.target), (comparison.equivariant, comparison.augmented)
    counts = [_evaluations(*each, since, until) for each in zip(sides, runs, strict=True)]
    if min(counts) < ENOUGH:
        return f"fewer than {ENOUGH} evaluations of an arm in the last decade of the budget"
    x = np.linspace(since, until, POINTS)
    centred = x - x.mean()
    slope = centred / (centred @ centred)
    bend = (
        2
        * (until - since)
        * np.linalg.pinv(np.stack([np.ones(POINTS), centred, centred**2], axis=1))[2]
    )
    read = [_Reads.of(side, x) for side in sides]
    equivariant, augmented = (
        PowerLawFit(plain(arm.weighed(-slope[:, None])), plain(arm.weighed(-bend[:, None])), count)
        for arm, count in zip(read, counts, strict=True)
    )
    ratio = read[0] - read[1]
    turn, reason = None, _crooked(ratio.weighed(slope[:, None]), ratio.weighed(bend[:, None]))
    if min(counts) == ENOUGH:
        reason = f"{ENOUGH} evaluations in the last decade cannot show whether the ratio of the losses is a power law"
    if reason is None:
        ahead = np.linspace(until, until + DECADE, POINTS)
        # The line's value at each later budget: the mean, and the slope times the distance from the
        # middle.
        weights = 1 / POINTS + slope[:, None] * (ahead - x.mean())
        turn, reason = _first_turn(lead_changes(ahead, ratio.weighed(weights)))
    return CurveScaling(math.exp(since), math.exp(until), equivariant, augmented, turn, reason)


@dataclass(frozen=True)
class _Reads:
    """Log losses, or their differences, at the P budgets of the part: ``fits`` [R, P], ``seeds``
    [S, P]; number of ``groups``."""

    fits: Array
    seeds: Array
    groups: int

    @classmethod
    def of(cls, side: ArmCurve, log_seconds: Array) -> _Reads:
        here = side.log_steps_within(log_seconds)
        return cls(side.fits_at(here, -side.jitter), side.seeds_at(here, -side.jitter), side.groups)

    def __sub__(self, other: _Reads) -> _Reads:
        return _Reads(self.fits - other.fits, self.seeds - other.seeds, self.groups)

    def weighed(self, weights: Array) -> Band:
        """``weights`` [P, X] applied to the P values, with the interval of the result [X]."""
        return interval(self.fits @ weights, self.seeds @ weights, self.groups)


def _crooked(slope: Band, bend: Band) -> str | None:
    """Why the ratio of the two fits cannot be followed beyond the data; None if it can."""
    if not (slope.low[0] > 0 or slope.high[0] < 0):
        return "the intervals do not tell the arms' exponents apart"
    seen = bend.low[0] > 0 or bend.high[0] < 0
    if seen and abs(bend.mid[0]) > STRAIGHT * abs(slope.mid[0]):
        return "the ratio of the losses is no power law over the last decade"
    return None


def _first_turn(turns: Sequence[SignChange]) -> tuple[SignChange | None, str | None]:
    if not turns:
        return None, "the fits do not cross within another decade"
    turn: SignChange = turns[0]
    if turn.log_seconds.low is None:
        return None, "the fits do not say who is ahead at the end of the measured range"
    return turn, None


def _evaluations(side: ArmCurve, runs: Sequence[ArmRun], since: float, until: float) -> int:
    """Fewest evaluations of a seed between budgets of exp(since) and exp(until) seconds, told from
    their steps as in the gap."""
    assert side.tau is not None
    # An evaluation at the very start of the part, or at its end but for a late step, is in it.
    low, high = since - math.log(side.tau) - 0.05, until - math.log(side.tau) + 0.05
    return min(sum(low <= math.log(point.step) <= high for point in run.trace()[0]) for run in runs)
