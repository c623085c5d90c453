"""Which arm is ahead at the budgets of the rungs, and where the lead changes hands.

Each rung is the annealed result of its budget, so one run under a budget of B device seconds holds
the comparison at B/2, B/4, ... too, with nothing read between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from equivbench.gap.campaigns import LEAD_SEEDS
from equivbench.gap.curves import decreasing, last_crossing, log_influence
from equivbench.gap.finals import mean_over_seeds, shared_groups
from equivbench.gap.intervals import UNKNOWN, Band, Quantity, exponential
from equivbench.gap.pairing import MatchedRuns
from equivbench.records.curves import by_place
from equivbench.records.schema import RunRecord, Test
from equivbench.specs import Contestant

Array = NDArray[np.float64]
SAME_BUDGET = 0.01
"""Relative difference below which two budgets are one."""


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
    """``ratio``: equivariant over augmented loss (below 1 the equivariant arm is ahead) at the
    rungs, whose budgets are ``seconds``, ascending; on the part of the test set that rungs are read
    on.

    Rungs at which an arm is not past the best predictor that needs no training are left out. The
    intervals hold for each budget by itself, not for all of them at once.
    """

    seconds: list[float]
    ratio: list[Quantity]
    changes: list[LeadChange]

    def at(self, seconds: float) -> Quantity:
        """The ratio at the rung of ``seconds``; unknown where there is none."""
        for known, ratio in zip(self.seconds, self.ratio, strict=True):
            if abs(known / seconds - 1) < SAME_BUDGET:
                return ratio
        return UNKNOWN

    def ahead(self, seconds: float) -> Contestant | None:
        """The arm that the interval of the ratio puts ahead at the rung of ``seconds``; None where
        it does not decide."""
        quantity = self.at(seconds)
        if quantity.high is not None and quantity.high < 1:
            return "equivariant"
        return "augmented" if quantity.low is not None and quantity.low > 1 else None


def follow(runs: MatchedRuns) -> Course | None:
    """The course of ``runs`` over their rungs; None where they cannot be compared by time."""
    tests = tests_at_rungs(runs)
    if isinstance(tests, str):
        return None
    rungs = {
        budget: [log_losses_at(own) for own in arms.values()]
        for budget, arms in tests.items()
        if all(_past_untrained(own) for own in arms.values())
    }
    if not rungs:
        return Course([], [], [])
    ratios = [
        mean_over_seeds(first - second, one - other)
        for (first, one), (second, other) in rungs.values()
    ]
    columns = [[each.mid, each.low, each.high, each.p] for each in ratios]
    band = Band(*np.concatenate(columns, axis=1))
    grid = np.log(list(rungs))
    turns = lead_changes(grid, band) if len(runs.seeds) >= LEAD_SEEDS else []
    losses = [float(augmented.mean()) for _, (augmented, _) in rungs.values()]
    return Course(
        seconds=list(rungs),
        ratio=[exponential(ratio) for ratio in ratios],
        changes=[
            LeadChange(
                turn.log_seconds.map(math.exp),
                turn.to,
                math.exp(float(np.interp(turn.log_seconds.value or 0.0, grid, losses))),
            )
            for turn in turns
        ],
    )


def tests_at_rungs(runs: MatchedRuns) -> dict[float, dict[str, list[Test]]] | str:
    """By budget in seconds, ascending, and by arm: the evaluation of each seed at that rung, where
    all have it. In words why there are none where the arms cannot be compared by time."""
    if runs.setting.budget_kind != "seconds":
        return "the budget is not in seconds"
    if runs.finished < len(runs.seeds):
        return "a seed diverged"
    if runs.disturbed is not None:
        return runs.disturbed
    rungs = {arm: [_rungs(run.record) for run in own] for arm, own in runs.arms.items()}
    common = set.intersection(*(set(each) for own in rungs.values() for each in own))
    tests = {
        budget: {arm: [each[budget] for each in own] for arm, own in rungs.items()}
        for budget in sorted(common)
    }
    every = [test for arms in tests.values() for own in arms.values() for test in own]
    return tests if shared_groups(every) else ungrouped(tests)


def ungrouped(
    tests: dict[float, dict[str, list[Test]]],
) -> dict[float, dict[str, list[Test]]]:
    """The same without test groups, which would not be those of one another."""
    return {
        budget: {
            arm: [msgspec.structs.replace(test, groups=None) for test in own]
            for arm, own in arms.items()
        }
        for budget, arms in tests.items()
    }


def log_losses_at(tests: Sequence[Test]) -> tuple[Array, Array]:
    """Of ``tests``, one a seed: the log losses [S], and how much each group moves them [S, G]."""
    return (
        np.log(np.array([test.total for test in tests], dtype=np.float64)),
        np.array([log_influence(test.groups) for test in tests]),
    )


def _rungs(record: RunRecord) -> dict[float, Test]:
    """By budget, those with a loss; the last only where it is on the part of the test set that the
    others are on."""
    tests = {budget: each.test for budget, each in by_place(record).items()}
    if record.final_on_part is None:
        tests.pop(record.budget.limit, None)
    return {budget: test for budget, test in tests.items() if test.total and test.total > 0}


def _past_untrained(tests: Sequence[Test]) -> bool:
    """Whether the loss is below that of the best predictor that needs no training by more than its
    interval, or, from one seed, at all; True where nobody knows."""
    known = [test.over_best_untrained for test in tests if test.over_best_untrained is not None]
    if len(known) < len(tests):
        return True
    band = mean_over_seeds(np.log(known), log_losses_at(tests)[1])
    bound = band.high[0] if math.isfinite(band.high[0]) else band.mid[0]
    return bool(bound < 0)


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


def _turn(grid: Array, difference: Array) -> float:
    """Where ``difference``, positive at the start and negative at the end, crosses zero."""
    return last_crossing(grid, decreasing(difference))[0]


def _bound(grid: Array, band: Band, mark: int, beside: int, sign: int) -> float:
    """Where, from ``mark`` to the budget ``beside`` it, the interval that excludes zero comes to
    include it."""
    edge = band.low if sign > 0 else -band.high
    if not math.isfinite(edge[beside]):
        return float(grid[mark])
    fraction = edge[mark] / (edge[mark] - edge[beside])
    return float(grid[mark] + fraction * (grid[beside] - grid[mark]))
