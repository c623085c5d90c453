"""Which arm leads at the budget, by enough seeds and Holm's correction over pairs, and at which smaller
budgets the lead changes hands.

Constant rate and EMA make each point of a curve a result of that smaller budget, up to tuning
(design.md), so one run under a budget of B device seconds holds the comparison at every budget
below B.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equivbench.gap.arm_curve import ArmCurve
from equivbench.gap.breakeven import CurvePair
from equivbench.gap.curves import decreasing, last_crossing
from equivbench.gap.intervals import LEVEL, UNKNOWN, Band, Quantity, exponential
from equivbench.gap.pairing import Contestant

LEAD_SEEDS = 6
"""No lead is claimed below this many paired seeds."""


@dataclass(frozen=True)
class Lead:
    """The claim that ``arm`` leads, or why there is none. ``p`` is two-sided at equal time,
    ``p_holm`` corrected over pairs."""

    arm: Contestant | None
    p: float | None
    p_holm: float | None
    reason: str


NO_LEAD = Lead(None, None, None, "not tested")


def behind_at(equal_time: Band) -> Contestant | None:
    """The arm that the interval of the log loss ratio at equal time puts behind; None where it does
    not decide."""
    if equal_time.low[0] > 0:
        return "equivariant"
    return "augmented" if equal_time.high[0] < 0 else None


def claim_leads(tests: Sequence[tuple[Band, int]]) -> list[Lead]:
    """The lead of each pair from its log loss ratio (equivariant over augmented) at equal time and
    its number of seeds.

    Only pairs with enough seeds are tested, so only they count in Holm's correction.
    """
    tested = [
        index
        for index, (band, seeds) in enumerate(tests)
        if seeds >= LEAD_SEEDS and math.isfinite(band.p[0])
    ]
    corrected = dict(
        zip(tested, holm([float(tests[index][0].p[0]) for index in tested]), strict=True)
    )
    return [_claim(band, seeds, corrected.get(index)) for index, (band, seeds) in enumerate(tests)]


def _claim(band: Band, seeds: int, p_holm: float | None) -> Lead:
    p = float(band.p[0]) if math.isfinite(band.p[0]) else None
    if seeds < LEAD_SEEDS:
        return Lead(
            None,
            p,
            None,
            f"{seeds} seed{'s' * (seeds != 1)}; a lead is claimed from {LEAD_SEEDS} on",
        )
    if p_holm is None:
        return Lead(None, p, None, "no seed tells the arms apart")
    if p_holm >= 1 - LEVEL:
        return Lead(
            None,
            p,
            p_holm,
            f"{_shown(p_holm)} after Holm's correction over pairs, not below {1 - LEVEL:.2g}",
        )
    leader: Contestant = "augmented" if band.mid[0] > 0 else "equivariant"
    return Lead(
        leader, p, p_holm, f"{seeds} seeds, {_shown(p_holm)} after Holm's correction over pairs"
    )


def _shown(p: float) -> str:
    """In words no more precise than a Student test of a few seeds can be."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given (Holm 1979)."""
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda each: p_values[each])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


Array = NDArray[np.float64]


POINTS = 32
"""Budgets at which the ratio is read, evenly spaced in the logarithm; between them it is
interpolated."""


ROUNDING = 1e-9


@dataclass(frozen=True)
class LeadChange:
    """The lead goes over ``to`` an arm at a budget of ``seconds``, when both have the same ``loss``
    (board metric).

    The interval of ``seconds`` is the stretch on which the interval of the loss ratio does not say
    who is ahead: from the last budget at which the other arm is ahead (``low``; None if no interval
    ever puts it ahead before) to the first at which ``to`` is (``high``; None if none does after).
    """

    seconds: Quantity
    to: Contestant
    loss: float

    @property
    def decided(self) -> bool:
        """Whether the intervals put one arm ahead before and the other after."""
        return self.seconds.low is not None and self.seconds.high is not None


@dataclass(frozen=True)
class Course:
    """``ratio``: equivariant over augmented loss (below 1 the equivariant arm is ahead) at budgets
    of ``seconds``, ascending.

    The intervals hold for each budget by itself, not for all of them at once.
    """

    seconds: list[float]
    ratio: list[Quantity]
    changes: list[LeadChange]

    def at(self, seconds: float) -> Quantity:
        """The ratio at a budget of ``seconds``, interpolated; unknown beyond what both arms cover.

        Raises ``ValueError`` for a budget that is not positive.
        """
        if seconds <= 0:
            raise ValueError(f"a budget must be positive, not {seconds:g} seconds")
        # A budget in seconds is the last one but for the rounding of its logarithm.
        if not self.seconds[0] * (1 - ROUNDING) <= seconds <= self.seconds[-1] * (1 + ROUNDING):
            return UNKNOWN
        grid, here = np.log(self.seconds), math.log(seconds)
        right = int(np.searchsorted(grid, here).clip(min(1, len(grid) - 1), len(grid) - 1))
        neighbours = self.ratio[max(right - 1, 0)], self.ratio[right]
        ends = grid[max(right - 1, 0)], grid[right]

        def between(parts: list[float | None]) -> float | None:
            known = [part for part in parts if part is not None]
            return (
                math.exp(np.interp(here, ends, np.log(known))) if len(known) == len(parts) else None
            )

        value, low, high = (
            between([getattr(each, name) for each in neighbours])
            for name in ("value", "low", "high")
        )
        return Quantity(value, low, high, neighbours[1].censored)

    def ahead(self, seconds: float) -> Contestant | None:
        """The arm that the interval of the ratio puts ahead at a budget of ``seconds``; None where
        it does not decide."""
        quantity = self.at(seconds)
        if quantity.high is not None and quantity.high < 1:
            return "equivariant"
        return "augmented" if quantity.low is not None and quantity.low > 1 else None


@dataclass(frozen=True)
class SignChange:
    """A change of the sign of a log ratio: as :class:`LeadChange`, in logarithms."""

    log_seconds: Quantity
    to: Contestant


def follow(contest: CurvePair, *, all_in: bool = False) -> Course | None:
    """The course of ``contest`` (the equivariant arm as chaser) over the budgets at which both arms
    have a curve.

    ``all_in`` counts the compile seconds as spent. None where an arm has no curve or no step time.
    """
    covered = coverage(contest, all_in=all_in)
    if covered is None:
        return None
    first, last = covered
    grid = np.linspace(first, last, POINTS) if first < last else np.array([last])
    band = contest.at_equal_seconds(grid, all_in=all_in)
    ratio = [
        exponential(Band(*(each[k : k + 1] for each in (band.mid, band.low, band.high, band.p))))
        for k in range(len(grid))
    ]
    turns = lead_changes(grid, band)
    places = np.array([turn.log_seconds.value for turn in turns], dtype=np.float64)
    losses = (
        [math.exp(each) for each in contest.target.log_loss_within(places, all_in=all_in)]
        if turns
        else []
    )
    changes = [
        LeadChange(turn.log_seconds.map(math.exp), turn.to, loss)
        for turn, loss in zip(turns, losses, strict=True)
    ]
    return Course([float(seconds) for seconds in np.exp(grid)], ratio, changes)


def coverage(contest: CurvePair, *, all_in: bool = False) -> tuple[float, float] | None:
    """Log seconds of the first and the last budget, up to that of the runs, at which both arms have
    been evaluated.

    A curve that ends a little before the budget, as timed, is held at its last value up to it, as
    everywhere in the gap. What ``--extend`` adds beyond the budget belongs to one arm alone.
    """
    ends = [_ends(side, all_in) for side in (contest.chaser, contest.target)]
    known = [each for each in ends if each is not None]
    if len(known) < len(ends):
        return None
    last = min(end for _, end in known)
    return min(max(start for start, _ in known), last), last


def lead_changes(grid: Array, band: Band) -> list[SignChange]:
    """Where the log ratio ``band`` on ``grid`` [P] of log seconds goes from one arm's lead to the
    other's.

    Noise about zero is no change of the lead: between two budgets at which the intervals put the
    same arm ahead there is none, however the estimate wanders, and between two with different arms
    ahead there is one. Its place is where the monotone curve nearest to the estimate crosses zero.
    Before the first and after the last budget that is decided the estimate alone speaks, and a
    change that it shows is given with an open interval.
    """
    if not np.isfinite(band.mid).all():
        return []
    sign = np.where(band.low > 0, 1, np.where(band.high < 0, -1, 0))
    decided = np.flatnonzero(sign)
    # The ends count as the estimate has them, so that what happens outside the decided stretches is
    # seen too.
    marks = [int(mark) for mark in decided]
    edges = {0, len(grid) - 1} - set(marks)
    marks = sorted([*marks, *edges])
    sides = [
        int(sign[mark]) if mark not in edges else int(np.sign(band.mid[mark])) for mark in marks
    ]
    turns = []
    for k in range(1, len(marks)):
        before, after = marks[k - 1], marks[k]
        if sides[k - 1] * sides[k] < 0:
            low = None if before in edges else _bound(grid, band, before, before + 1, sides[k - 1])
            high = None if after in edges else _bound(grid, band, after, after - 1, sides[k])
            where = _turn(grid[before : after + 1], sides[k - 1] * band.mid[before : after + 1])
            turns.append(
                SignChange(
                    _between(where, low, high), "augmented" if sides[k] > 0 else "equivariant"
                )
            )
    return turns


def _ends(side: ArmCurve, all_in: bool) -> tuple[float, float] | None:
    if side.curves is None or side.tau is None:
        return None
    compile_seconds = side.compile_seconds if all_in else 0.0
    steps = math.exp(side.curves.log_steps[0]), min(math.exp(side.curves.log_steps[-1]), side.steps)
    first, last = (math.log(each * side.tau + compile_seconds) for each in steps)
    return first, last


def _turn(grid: Array, difference: Array) -> float:
    """Where ``difference``, positive at the start and negative at the end, crosses zero."""
    return last_crossing(grid, decreasing(difference[None])[0])[0]


def _bound(grid: Array, band: Band, mark: int, beside: int, side: int) -> float:
    """Where, from ``mark`` to the budget ``beside`` it, the interval that excludes zero comes to
    include it."""
    edge = band.low if side > 0 else -band.high
    if not math.isfinite(edge[beside]):
        return float(grid[mark])
    return float(
        grid[mark] + edge[mark] / (edge[mark] - edge[beside]) * (grid[beside] - grid[mark])
    )


def _between(where: float, low: float | None, high: float | None) -> Quantity:
    # The nearest monotone curve may cross before the estimate itself does; the interval always
    # holds the value.
    return Quantity(
        where, None if low is None else min(low, where), None if high is None else max(high, where)
    )
