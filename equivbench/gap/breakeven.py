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
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from equivbench.gap.curves import ArmCurves, Censored, decreasing, evaluate, last_crossing
from equivbench.gap.quantities import UNKNOWN, Quantity
from equivbench.gap.resampling import (
    FEW_SEEDS,
    REPLICATES,
    Band,
    Resampled,
    draw_seeds,
    percentile,
    ranked,
    student,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """One arm: its curves and how fast it steps.

    ``curves`` holds the finished seeds in order (None if there are none), ``finished`` [S] says
    which of the S paired seeds these are; ``log_tau`` [S] are the log seconds a step of each seed
    (None where they were not timed), ``steps`` the steps that the budget allows,
    ``compile_seconds`` the mean over seeds. ``groups`` counts the test groups that the curves'
    replicates are drawn from, 0 without replicates.
    """

    curves: ArmCurves | None
    finished: NDArray[np.bool_]
    log_tau: Array | None
    steps: float
    batch_size: float
    compile_seconds: float
    groups: int

    @property
    def tau(self) -> float | None:
        """Steady-state seconds a step, geometric mean over seeds."""
        return None if self.log_tau is None else math.exp(float(self.log_tau.mean()))

    @property
    def jitter(self) -> Array:
        """[S]: each seed's log seconds a step against the mean; zeros where there is no timing."""
        return (
            np.zeros(len(self.finished))
            if self.log_tau is None
            else self.log_tau - self.log_tau.mean()
        )

    def log_steps_within(self, log_seconds: Array, *, all_in: bool = False) -> Array:
        """[P]: log of the steps that budgets of exp(``log_seconds``) [P] allow; ``all_in``, after
        the compile seconds."""
        assert self.tau is not None
        if not all_in or self.compile_seconds == 0:
            return log_seconds - math.log(self.tau)
        # Not one step is made while it compiles; a curve is read at its first point from any
        # smaller number of steps on.
        left = np.maximum(np.exp(log_seconds) - self.compile_seconds, np.finfo(np.float64).tiny)
        return np.asarray(np.log(left) - math.log(self.tau))

    @cached_property
    def fits(self) -> Array:
        """[R, K]: isotonic fits of the mean over seeds; rows after the first have test groups (and
        many seeds) drawn anew."""
        assert self.curves is not None
        log_loss = self.curves.log_loss
        if len(self.finished) <= FEW_SEEDS:
            return self.curves.fits()
        drawn = draw_seeds(len(self.finished), REPLICATES)
        groups = np.arange(len(drawn)) if len(log_loss) > 1 else np.zeros(len(drawn), dtype=np.intp)
        return decreasing(
            np.stack(
                [
                    log_loss[row, seeds].mean(axis=0)
                    for row, seeds in zip(groups, drawn, strict=True)
                ]
            )
        )

    def fits_at(self, log_steps: Array, shift: Array) -> Array:
        """[R, P]: the fits at ``log_steps`` [P], moved by the mean ``shift`` [S] of the seeds in
        each replicate."""
        assert self.curves is not None
        points = log_steps
        if len(self.finished) > FEW_SEEDS:
            points = log_steps + shift[draw_seeds(len(self.finished), REPLICATES)].mean(
                axis=1, keepdims=True
            )
        return evaluate(self.curves.log_steps, self.fits, points)

    def seeds_at(self, log_steps: Array, shift: Array, *, fitted: bool = False) -> Array:
        """[S, P]: each seed's log loss at ``log_steps`` [P] moved by its own ``shift`` [S];
        infinite where it diverged."""
        values = np.full((len(self.finished), len(log_steps)), np.inf)
        if self.curves is not None:
            points = log_steps[None] + shift[self.finished, None]
            rows = self.curves.seed_fits() if fitted else self.curves.log_loss[0]
            values[self.finished] = evaluate(self.curves.log_steps, rows, points)
        return values

    def log_loss_within(self, log_seconds: Array, *, all_in: bool = False) -> Array:
        """[P]: the log loss after budgets of exp(``log_seconds``) [P]; the median over seeds where
        some diverged."""
        here = self.log_steps_within(log_seconds, all_in=all_in)
        if not self.finished.all():
            return np.asarray(
                np.median(self.seeds_at(here, np.zeros(len(self.finished)), fitted=True), axis=0)
            )
        assert self.curves is not None
        return np.asarray(evaluate(self.curves.log_steps, self.fits[:1], here)[0])

    def loss(self) -> Band:
        """The log loss at the budget (one point)."""
        here, still = np.array([math.log(self.steps)]), np.zeros(len(self.finished))
        if not self.finished.all():
            return ranked(self.seeds_at(here, still, fitted=True))
        return interval(self.fits_at(here, still), self.seeds_at(here, still), self.groups)


@dataclass(frozen=True)
class BreakEven:
    """The log steps at which the chaser is down to the target's loss at the target's budget.

    ``steps`` and ``time`` have the same value; their intervals differ by the spread of the step
    times, which the number of steps does not feel and the break-even speed-up does.
    """

    steps: Quantity
    time: Quantity


@dataclass(frozen=True)
class Contest:
    """``chaser`` against ``target`` under a budget; ``timed_budget`` says that the budget is in
    seconds."""

    chaser: Side
    target: Side
    timed_budget: bool

    @property
    def exchanged(self) -> Contest:
        """The same with the arms exchanged."""
        return Contest(self.target, self.chaser, self.timed_budget)

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


def interval(fits: Array, seeds: Array, groups: int) -> Band:
    """The first row of ``fits`` [R, P], with the interval that the other rows and the ``seeds`` [S,
    P] give it."""
    if len(seeds) > FEW_SEEDS:
        return percentile(fits[0], len(seeds), fits[1:])
    return student(fits[0], seeds, Resampled(fits[1:], groups) if groups > 0 else None)


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
