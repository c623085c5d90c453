"""Which arm leads at the budget, by enough seeds and Holm's correction over pairs, and at which
smaller budgets the lead changes hands.

Constant rate and EMA make each point of a curve a result of that smaller budget, up to tuning, so
one run under a budget of B device seconds holds the comparison at every budget below B.
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

Array = NDArray[np.float64]
LEAD_SEEDS = 6
"""No lead is claimed below this many paired seeds."""
POINTS = 32
"""Budgets at which the ratio is read, evenly spaced in the logarithm; between them it is
interpolated."""
ROUNDING = 1e-9


@dataclass(frozen=True)
class Lead:
    """The claim that ``arm`` leads, or why there is none. ``p`` is two-sided,
    ``p_holm`` corrected over pairs."""

    arm: Contestant | None
    p: float | None
    p_holm: float | None
    reason: str


NO_LEAD = Lead(None, None, None, "not tested")


def behind_at(ratio: Band) -> Contestant | None:
    """The arm that the interval of the log loss ratio puts behind; None where it does not
    decide."""
    if ratio.low[0] > 0:
        return "equivariant"
    return "augmented" if ratio.high[0] < 0 else None


def claim_leads(tests: Sequence[tuple[Band, int, str | None]]) -> list[Lead]:
    """The lead of each pair from its log loss ratio (equivariant over augmented) at the budget and
    its number of seeds, or none for a reason that is given.

    Only pairs with enough seeds are tested, so only they count in Holm's correction.
    """
    tested = [
        index
        for index, (band, seeds, why_not) in enumerate(tests)
        if why_not is None and seeds >= LEAD_SEEDS and math.isfinite(band.p[0])
    ]
    adjusted = holm([float(tests[index][0].p[0]) for index in tested])
    corrected = dict(zip(tested, adjusted, strict=True))
    return [
        _claim(band, seeds, corrected.get(index))
        if why_not is None
        else Lead(None, None, None, why_not)
        for index, (band, seeds, why_not) in enumerate(tests)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given.

    The i-th smallest of m becomes max over j <= i of min(1, (m - j + 1) p_j).

    References
    ----------
    Holm, Scandinavian Journal of Statistics 6, 65 (1979).
    """
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda each: p_values[each])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def _claim(band: Band, seeds: int, p_holm: float | None) -> Lead:
    p = float(band.p[0]) if math.isfinite(band.p[0]) else None
    if seeds < LEAD_SEEDS:
        count = f"{seeds} seed{'s' * (seeds != 1)}"
        return Lead(None, p, None, f"{count}; a lead is claimed from {LEAD_SEEDS} on")
    if p_holm is None:
        return Lead(None, p, None, "no seed tells the arms apart")
    shown = f"{_shown(p_holm)} after Holm's correction over pairs"
    if p_holm >= 1 - LEVEL:
        return Lead(None, p, p_holm, f"{shown}, not below {1 - LEVEL:.2g}")
    leader: Contestant = "augmented" if band.mid[0] > 0 else "equivariant"
    return Lead(leader, p, p_holm, f"{seeds} seeds, {shown}")


def _shown(p: float) -> str:
    """In words no more precise than a Student test of a few seeds can be."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


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
class SignChange:
    """A change of the sign of a log ratio: as :class:`LeadChange`, in logarithms."""

    log_seconds: Quantity
    to: Contestant


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
        left = max(right - 1, 0)
        before, after = self.ratio[left], self.ratio[right]

        def between(first: float | None, second: float | None) -> float | None:
            if first is None or second is None:
                return None
            ends = [grid[left], grid[right]]
            return math.exp(np.interp(here, ends, np.log([first, second])))

        return Quantity(
            between(before.value, after.value),
            between(before.low, after.low),
            between(before.high, after.high),
            after.censored,
        )

    def ahead(self, seconds: float) -> Contestant | None:
        """The arm that the interval of the ratio puts ahead at a budget of ``seconds``; None where
        it does not decide."""
        quantity = self.at(seconds)
        if quantity.high is not None and quantity.high < 1:
            return "equivariant"
        return "augmented" if quantity.low is not None and quantity.low > 1 else None


def follow(pair: CurvePair, *, all_in: bool = False) -> Course | None:
    """The course of ``pair`` (the equivariant arm first) over the budgets at which both arms have a
    curve.

    ``all_in`` counts the compile seconds as spent. None where an arm has no curve or no step time.
    """
    covered = coverage(pair, all_in=all_in)
    if covered is None:
        return None
    first, last = covered
    grid = np.linspace(first, last, POINTS) if first < last else np.array([last])
    band = pair.at_equal_seconds(grid, all_in=all_in)
    turns = lead_changes(grid, band)
    losses: Array = np.array([])
    if turns:
        places = np.array([turn.log_seconds.value for turn in turns], dtype=np.float64)
        losses = pair.other.log_loss_within(places, all_in=all_in)
    return Course(
        seconds=[float(seconds) for seconds in np.exp(grid)],
        ratio=[exponential(band.at(point)) for point in range(len(grid))],
        changes=[
            LeadChange(turn.log_seconds.map(math.exp), turn.to, math.exp(loss))
            for turn, loss in zip(turns, losses, strict=True)
        ],
    )


def coverage(pair: CurvePair, *, all_in: bool = False) -> tuple[float, float] | None:
    """Log seconds of the first and the last budget, up to that of the runs, at which both arms have
    been evaluated.

    A curve that ends a little before the budget, as timed, is held at its last value up to it, as
    everywhere in the gap. What ``--extend`` adds beyond the budget belongs to one arm alone.
    """
    ends = [_ends(curve, all_in) for curve in (pair.arm, pair.other)]
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
    decided = {int(mark) for mark in np.flatnonzero(sign)}
    # The ends count as the estimate has them, so that what happens outside the decided stretches is
    # seen too.
    undecided_ends = {0, len(grid) - 1} - decided
    marks = sorted(decided | undecided_ends)
    signs = [int(np.sign(band.mid[m])) if m in undecided_ends else int(sign[m]) for m in marks]
    changes = []
    for k in range(1, len(marks)):
        if signs[k - 1] * signs[k] >= 0:
            continue
        before, after = marks[k - 1], marks[k]
        stretch = slice(before, after + 1)
        where = _turn(grid[stretch], signs[k - 1] * band.mid[stretch])
        low = high = None
        # The nearest monotone curve may cross before the estimate itself does; the interval always
        # holds the value.
        if before in decided:
            low = min(_bound(grid, band, before, before + 1, signs[k - 1]), where)
        if after in decided:
            high = max(_bound(grid, band, after, after - 1, signs[k]), where)
        to: Contestant = "augmented" if signs[k] > 0 else "equivariant"
        changes.append(SignChange(Quantity(where, low, high), to))
    return changes


def _ends(curve: ArmCurve, all_in: bool) -> tuple[float, float] | None:
    """Log seconds at which the arm's curve begins and ends."""
    if curve.curves is None or curve.tau is None:
        return None
    compile_seconds = curve.compile_seconds if all_in else 0.0
    log_steps = curve.curves.log_steps
    first, last = math.exp(log_steps[0]), min(math.exp(log_steps[-1]), curve.steps)
    return (
        math.log(first * curve.tau + compile_seconds),
        math.log(last * curve.tau + compile_seconds),
    )


def _turn(grid: Array, difference: Array) -> float:
    """Where ``difference``, positive at the start and negative at the end, crosses zero."""
    return last_crossing(grid, decreasing(difference[None])[0])[0]


def _bound(grid: Array, band: Band, mark: int, beside: int, sign: int) -> float:
    """Where, from ``mark`` to the budget ``beside`` it, the interval that excludes zero comes to
    include it."""
    edge = band.low if sign > 0 else -band.high
    if not math.isfinite(edge[beside]):
        return float(grid[mark])
    fraction = edge[mark] / (edge[mark] - edge[beside])
    return float(grid[mark] + fraction * (grid[beside] - grid[mark]))
