"""Two arms' curves set against each other: the loss ratio at the budget and the steps at which one
reaches the other.

Everything is a difference of log losses, seed by seed: the arm in question (``chaser``) at n steps
against the other (``target``) at the steps that its budget allows. Where that difference crosses
zero is the break-even point; where the ends of its interval cross zero are the ends of the
break-even point's interval. For non-increasing curves this is the same as resampling whole curves
and taking quantiles of their crossings, a replicate that does not cross counting as infinite: a
crossing lies before n exactly if the difference at n is not positive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equivbench.gap.arm_curve import ArmCurve
from equivbench.gap.curves import last_crossing
from equivbench.gap.intervals import (
    UNKNOWN,
    Band,
    Censored,
    Quantity,
    interval,
    ranked,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class BreakEven:
    """The log steps at which the chaser is down to the target's loss at the target's budget.

    ``steps`` and ``time`` have the same value; their intervals differ by the spread of the step
    times, which the number of steps does not feel and the break-even speed-up does.
    """

    steps: Quantity
    time: Quantity


@dataclass(frozen=True)
class CurvePair:
    """``chaser`` against ``target`` under a budget; ``timed_budget`` says that the budget is in
    seconds."""

    chaser: ArmCurve
    target: ArmCurve
    timed_budget: bool

    @property
    def exchanged(self) -> CurvePair:
        """The same with the arms exchanged."""
        return CurvePair(self.target, self.chaser, self.timed_budget)

    def break_even(self) -> BreakEven:
        """Where the chaser's curve comes down to the target's loss."""
        if self.chaser.curves is None or self.target.curves is None:
            censored: Censored = "above" if self.chaser.curves is None else "below"
            nowhere = (
                UNKNOWN if self.chaser.curves is self.target.curves else Quantity(censored=censored)
            )
            return BreakEven(nowhere, nowhere)
        grid = self.chaser.curves.log_steps
        return BreakEven(
            _crossing(grid, self.difference(grid)),
            _crossing(grid, self.difference(grid, in_time=True)),
        )

    def loss_ratio(self) -> Band:
        """Log of the chaser's over the target's loss, each at its own budget (one point)."""
        return self.difference(np.array([math.log(self.chaser.steps)]), in_time=self.timed_budget)

    def at_equal_time(self) -> Band:
        """Log of the chaser's over the target's loss after the longest time that both budgets cover
        (one point).

        Under a budget in seconds this is :meth:`loss_ratio`; under one in steps or samples the
        slower arm is read where the faster one finished.
        """
        chaser, target = self.chaser.tau, self.target.tau
        if chaser is None or target is None or self.timed_budget:
            return self.loss_ratio()
        if self.chaser.steps * chaser >= self.target.steps * target:
            return self.difference(
                np.array([math.log(self.target.steps * target / chaser)]), in_time=True
            )
        turned = self.exchanged.at_equal_time()
        return Band(-turned.mid, -turned.high, -turned.low, turned.p)

    def at_equal_seconds(self, log_seconds: Array, *, all_in: bool = False) -> Band:
        """Log of the chaser's over the target's loss when each has had budgets of
        exp(``log_seconds``) [P] of its device.

        ``all_in`` takes each arm's compile seconds out of the budget first; budgets within which an
        arm only compiles leave it at the first point of its curve. At the end of a budget in
        seconds this is :meth:`loss_ratio`. ``ValueError`` without step times.
        """
        if self.chaser.tau is None or self.target.tau is None:
            raise ValueError(
                "no step time was measured, so there is no budget in seconds to compare at"
            )
        steps = [
            side.log_steps_within(log_seconds, all_in=all_in) for side in (self.chaser, self.target)
        ]
        # A seed that was timed slower is read earlier: what is held fixed is the time.
        return self._band(steps[0], -self.chaser.jitter, steps[1], -self.target.jitter)

    def difference(self, log_steps: Array, *, in_time: bool = False) -> Band:
        """The chaser's log loss at ``log_steps`` [P] minus the target's at its budget.

        ``in_time`` holds the time fixed instead of the steps, so that a seed that was timed slower
        is read earlier.
        """
        # Under a budget in seconds a seed timed slower has fewer target steps; under one in steps
        # it has a longer budget.
        target_shift = (
            -self.target.jitter if self.timed_budget else np.zeros_like(self.target.jitter)
        )
        chaser_shift = target_shift
        if in_time:
            chaser_shift = -self.chaser.jitter + (0.0 if self.timed_budget else self.target.jitter)
        at = np.array([math.log(self.target.steps)])
        return self._band(log_steps, chaser_shift, at, target_shift)

    def _band(
        self, chaser_at: Array, chaser_shift: Array, target_at: Array, target_shift: Array
    ) -> Band:
        """The chaser's log loss at ``chaser_at`` [P] minus the target's at ``target_at`` [P or 1],
        seeds moved by shifts [S]."""
        if not (self.chaser.finished.all() and self.target.finished.all()):
            # A seed that both arms failed says nothing about which is better.
            known = self.chaser.finished | self.target.finished
            chaser = self.chaser.seeds_at(chaser_at, chaser_shift, fitted=True)[known]
            target = self.target.seeds_at(target_at, target_shift, fitted=True)[known]
            if not known.any():
                nothing = np.full(len(chaser_at), np.nan)
                return Band(nothing, nothing, nothing, nothing)
            return ranked(chaser - target)
        seeds = self.chaser.seeds_at(chaser_at, chaser_shift) - self.target.seeds_at(
            target_at, target_shift
        )
        fits = self.chaser.fits_at(chaser_at, chaser_shift) - self.target.fits_at(
            target_at, target_shift
        )
        return interval(fits, seeds, self.chaser.groups)


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
