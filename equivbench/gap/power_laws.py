"""How the loss falls with the budget: a power law through the results of one pair at several
budgets, or through the last decade of each arm's curve within a run."""

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

Array = NDArray[np.float64]
ENOUGH = 3
"""Budgets from which a slope has an interval (two points leave no residual)."""
DECADE = math.log(10.0)
"""The later part of a curve that is fitted, and how far beyond its end a fit is followed, in log
seconds."""
STRAIGHT = 0.1
"""A change of the ratio's exponent over the part, as a fraction of the exponent, below which the
ratio is a power law for our purpose even where the intervals are narrow enough to see it bend."""


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
    changes hands: a ``SignChange`` in log seconds, or None with the ``reason``. It is no
    measurement.
    """

    since: float
    until: float
    equivariant: PowerLawFit
    augmented: PowerLawFit
    extrapolated: SignChange | None
    reason: str | None


def fit_within_run(pair: CurvePair, runs: MatchedRuns) -> CurveScaling | str:
    """The fits over the last decade of the budgets that both arms cover, or in words why there are
    none.

    Least squares of log loss on log seconds at evenly spaced log budgets, a linear function of the
    curve, so that the interval comes from the same seeds and test groups as that of every other
    quantity of the gap. It covers their noise, not that the loss may be no power law; ``bend``
    shows that.
    """
    covered = coverage(pair)
    if covered is None:
        return "an arm has no curve or no step time"
    if not (pair.arm.finished.all() and pair.other.finished.all()):
        return "a seed diverged"
    since, until = max(covered[0], covered[1] - DECADE), covered[1]
    counts = [
        _evaluations(pair.arm, runs.equivariant, since, until),
        _evaluations(pair.other, runs.augmented, since, until),
    ]
    if min(counts) < ENOUGH:
        return f"fewer than {ENOUGH} evaluations of an arm in the last decade of the budget"
    x = np.linspace(since, until, POINTS)
    line = _StraightLine.through(x)
    curves = [_CurvePart.of(curve, x) for curve in (pair.arm, pair.other)]
    equivariant, augmented = (
        PowerLawFit(
            plain(curve.weighed(-line.slope[:, None])),
            plain(curve.weighed(-line.bend[:, None])),
            count,
        )
        for curve, count in zip(curves, counts, strict=True)
    )
    ratio = curves[0] - curves[1]
    turn, reason = _extrapolated(ratio, line, until, min(counts))
    return CurveScaling(math.exp(since), math.exp(until), equivariant, augmented, turn, reason)


@dataclass(frozen=True)
class _StraightLine:
    """Least squares through values at evenly spaced ``x`` [P], as weights [P] of the values."""

    x: Array
    slope: Array
    bend: Array
    """The change of the slope from the first to the last x, by a parabola."""

    @classmethod
    def through(cls, x: Array) -> _StraightLine:
        centred = x - x.mean()
        powers = np.stack([np.ones(len(x)), centred, centred**2], axis=1)
        square = np.linalg.pinv(powers)[2]
        return cls(x, centred / (centred @ centred), 2 * (x[-1] - x[0]) * square)

    def at(self, x: Array) -> Array:
        """[P, X] weights of the line's value at ``x`` [X]: the mean, and the slope times the
        distance from the middle."""
        return np.asarray(1 / len(self.x) + self.slope[:, None] * (x - self.x.mean()))


@dataclass(frozen=True)
class _CurvePart:
    """Log losses, or their differences, at the P budgets of the part: ``fits`` [R, P], ``seeds``
    [S, P]; number of ``groups``."""

    fits: Array
    seeds: Array
    groups: int

    @classmethod
    def of(cls, curve: ArmCurve, log_seconds: Array) -> _CurvePart:
        here, shift = curve.log_steps_within(log_seconds), -curve.jitter
        return cls(curve.fits_at(here, shift), curve.seeds_at(here, shift), curve.groups)

    def __sub__(self, other: _CurvePart) -> _CurvePart:
        return _CurvePart(self.fits - other.fits, self.seeds - other.seeds, self.groups)

    def weighed(self, weights: Array) -> Band:
        """``weights`` [P, X] applied to the P values, with the interval of the result [X]."""
        return interval(self.fits @ weights, self.seeds @ weights, self.groups)


def _extrapolated(
    ratio: _CurvePart, line: _StraightLine, until: float, evaluations: int
) -> tuple[SignChange | None, str | None]:
    """Where the fitted line of the log ratio crosses zero within a decade after ``until``, or why
    that cannot be said."""
    if evaluations == ENOUGH:
        return None, (
            f"{ENOUGH} evaluations in the last decade cannot show "
            "whether the ratio of the losses is a power law"
        )
    slope, bend = ratio.weighed(line.slope[:, None]), ratio.weighed(line.bend[:, None])
    if not (slope.low[0] > 0 or slope.high[0] < 0):
        return None, "the intervals do not tell the arms' exponents apart"
    bends = bend.low[0] > 0 or bend.high[0] < 0
    if bends and abs(bend.mid[0]) > STRAIGHT * abs(slope.mid[0]):
        return None, "the ratio of the losses is no power law over the last decade"
    ahead = np.linspace(until, until + DECADE, POINTS)
    turns = lead_changes(ahead, ratio.weighed(line.at(ahead)))
    if not turns:
        return None, "the fits do not cross within another decade"
    if turns[0].log_seconds.low is None:
        return None, "the fits do not say who is ahead at the end of the measured range"
    return turns[0], None


def _evaluations(curve: ArmCurve, runs: Sequence[ArmRun], since: float, until: float) -> int:
    """Fewest evaluations of a seed between budgets of exp(since) and exp(until) seconds, told from
    their steps as in the gap."""
    assert curve.tau is not None
    # An evaluation at the very start of the part, or at its end but for a late step, is in it.
    low, high = since - math.log(curve.tau) - 0.05, until - math.log(curve.tau) + 0.05
    return min(sum(low <= math.log(point.step) <= high for point in run.trace()[0]) for run in runs)
