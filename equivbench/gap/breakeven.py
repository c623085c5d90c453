"""The curves of two arms set against each other: the loss ratio at the budget, and the steps at
which one arm reaches the other's loss.

Everything is a difference of log losses, seed by seed,

    d(n) = log L(n) - log L_other(n_other),

of the arm in question after n steps and the other after the n_other steps of its budget. The
break-even point n* is where d crosses zero, and where the ends of d's interval cross zero are the
ends of its interval. For non-increasing curves this is the same as resampling whole curves and
taking quantiles of their crossings, a replicate that does not cross counting as infinite: a
crossing lies before n exactly if d(n) is not positive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equivbench.gap.arm_curve import ArmCurve
from equivbench.gap.curves import last_crossing
from equivbench.gap.intervals import UNKNOWN, Band, Quantity, interval, ranked

Array = NDArray[np.float64]


@dataclass(frozen=True)
class BreakEven:
    """The log steps at which the arm is down to the other's loss at the other's budget.

    ``steps`` and ``time`` have the same value; their intervals differ by the spread of the step
    times, which the number of steps does not feel and the break-even speed-up does.
    """

    steps: Quantity
    time: Quantity


@dataclass(frozen=True)
class CurvePair:
    """An ``arm`` and the ``other`` it is compared with, under one budget; ``timed_budget`` says
    that the budget is in seconds."""

    arm: ArmCurve
    other: ArmCurve
    timed_budget: bool

    @property
    def exchanged(self) -> CurvePair:
        """The same with the arms exchanged."""
        return CurvePair(self.other, self.arm, self.timed_budget)

    def break_even(self) -> BreakEven:
        """Where the arm's curve comes down to the other's loss."""
        if self.arm.curves is None or self.other.curves is None:
            nowhere = UNKNOWN
            if self.arm.curves is not self.other.curves:
                nowhere = Quantity(censored="above" if self.arm.curves is None else "below")
            return BreakEven(nowhere, nowhere)
        grid = self.arm.curves.log_steps
        return BreakEven(
            _crossing(grid, self.difference(grid)),
            _crossing(grid, self.difference(grid, in_time=True)),
        )

    def at_equal_seconds(self, log_seconds: Array, *, all_in: bool = False) -> Band:
        """Log of the arm's over the other's loss when each has had budgets of exp(``log_seconds``)
        [P] of its device.

        ``all_in`` takes each arm's compile seconds out of the budget first; budgets within which an
        arm only compiles leave it at the first point of its curve. Raises ``ValueError`` without
        step times.
        """
        if self.arm.tau is None or self.other.tau is None:
            raise ValueError(
                "no step time was measured, so there is no budget in seconds to compare at"
            )
        # A seed that was timed slower is read earlier: what is held fixed is the time.
        return self._band(
            self.arm.log_steps_within(log_seconds, all_in=all_in),
            -self.arm.jitter,
            self.other.log_steps_within(log_seconds, all_in=all_in),
            -self.other.jitter,
        )

    def difference(self, log_steps: Array, *, in_time: bool = False) -> Band:
        """The arm's log loss at ``log_steps`` [P] minus the other's at its budget.

        ``in_time`` holds the time fixed instead of the steps, so that a seed that was timed slower
        is read earlier.
        """
        other = self.other
        # Under a budget in seconds a seed timed slower has fewer steps; under one in steps it has a
        # longer budget.
        other_shift = -other.jitter if self.timed_budget else np.zeros_like(other.jitter)
        shift = other_shift
        if in_time:
            shift = -self.arm.jitter + (0.0 if self.timed_budget else other.jitter)
        return self._band(log_steps, shift, np.array([math.log(other.steps)]), other_shift)

    def _band(self, steps: Array, shift: Array, other_steps: Array, other_shift: Array) -> Band:
        """The arm's log loss at log ``steps`` [P] minus the other's at ``other_steps`` [P or 1],
        the seeds of each moved by their shifts [S]."""
        arm, other = self.arm, self.other
        if arm.finished.all() and other.finished.all():
            fits = arm.fits_at(steps, shift) - other.fits_at(other_steps, other_shift)
            seeds = arm.seeds_at(steps, shift) - other.seeds_at(other_steps, other_shift)
            return interval(fits, seeds, arm.groups)
        # A seed that both arms failed says nothing about which is better.
        known = arm.finished | other.finished
        if not known.any():
            nothing = np.full(len(steps), np.nan)
            return Band(nothing, nothing, nothing, nothing)
        losses = arm.seeds_at(steps, shift, fitted=True)[known]
        other_losses = other.seeds_at(other_steps, other_shift, fitted=True)[known]
        return ranked(losses - other_losses)


def _crossing(grid: Array, band: Band) -> Quantity:
    """The crossing of ``band`` with zero, in log steps; the widest interval where the band's ends
    are not monotone."""
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
    )
