"""The course of the lead: its end is the gap, closed-form crossings, noise that is no change, how
often intervals cover."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from factories import make_run
from hypothesis import given, settings
from hypothesis import strategies as st
from power_laws import COMPILE, CROSSING, LIMIT, STEPS, T_STAR, TAU, law, runs
from scipy.optimize import brentq

from equivbench.gap.efficiency import MeasuredGap, measure_gaps
from equivbench.gap.intervals import Band, Quantity
from equivbench.gap.leads import follow, lead_changes
from equivbench.records.schema import RunRecord


def only(records: list[RunRecord]) -> MeasuredGap:
    (weighed,) = measure_gaps(records)
    return weighed


def test_the_course_ends_with_the_gap() -> None:
    generator = np.random.default_rng(0)
    weighed = only(runs(CROSSING, seeds=4, noise=0.1, generator=generator))
    course, gap = weighed.course, weighed.gap
    assert course is not None
    assert course.seconds[-1] == pytest.approx(LIMIT)
    for name in ("value", "low", "high"):
        # The same numbers by two ways of writing the budget's logarithm.
        assert getattr(course.ratio[-1], name) == pytest.approx(
            getattr(gap.loss_ratio, name), rel=1e-9
        )
    assert gap.behind is not None
    assert course.ahead(LIMIT) not in (None, gap.behind)
    assert gap.lead_changes == course.changes


def test_the_ratio_is_that_of_the_curves_at_every_budget() -> None:
    course = only(runs(CROSSING)).course
    assert course is not None
    assert course.seconds == sorted(course.seconds)
    # Both curves begin at ten steps: two seconds of the slower arm.
    assert course.seconds[0] == pytest.approx(STEPS[0] * TAU["equivariant"])
    for seconds, ratio in zip(course.seconds, course.ratio, strict=True):
        # A straight line in logarithms is interpolated exactly.
        assert ratio.value == pytest.approx(
            CROSSING["equivariant"](seconds) / CROSSING["augmented"](seconds), rel=1e-9
        )


def test_between_its_budgets_the_ratio_is_interpolated_and_beyond_them_unknown() -> None:
    course = only(runs(CROSSING, seeds=3, noise=0.1, generator=np.random.default_rng(6))).course
    assert course is not None
    assert course.at(course.seconds[0]) == course.ratio[0]
    middle = course.at(math.sqrt(course.seconds[3] * course.seconds[4]))
    for name in ("value", "low", "high"):
        ends = [getattr(course.ratio[k], name) for k in (3, 4)]
        # Half way in logarithms is the geometric mean.
        assert getattr(middle, name) == pytest.approx(math.sqrt(ends[0] * ends[1]), rel=1e-9)
    assert course.at(LIMIT).value == pytest.approx(course.ratio[-1].value, rel=1e-9)
    assert course.at(2 * LIMIT) == course.at(course.seconds[0] / 2) == Quantity()
    with pytest.raises(ValueError, match="positive"):
        course.at(0.0)


def test_the_lead_changes_hands_where_the_laws_cross() -> None:
    generator = np.random.default_rng(1)
    weighed = only(runs(CROSSING, seeds=5, noise=0.02, generator=generator))
    (change,) = weighed.gap.lead_changes
    assert change.to == "equivariant"
    assert change.decided
    assert change.seconds.low < change.seconds.value < change.seconds.high
    # The mean of five seeds is off by .02 sqrt(2/5) in the ratio's logarithm, which falls with
    # slope .4; four deviations.
    assert math.log(change.seconds.value / T_STAR) == pytest.approx(
        0.0, abs=4 * 0.02 * math.sqrt(2 / 5) / 0.4
    )
    # Where they tie both have the same loss; the augmented arm's law holds to its mean over five
    # seeds, four deviations.
    assert change.loss == pytest.approx(
        CROSSING["augmented"](change.seconds.value), rel=4 * 0.02 / math.sqrt(5)
    )


def test_with_compilation_counted_each_curve_is_moved_by_its_own_seconds() -> None:
    weighed = only(runs(CROSSING, compiled=True))
    course = follow(weighed.curves, all_in=True)
    assert course is not None
    moved = {arm: lambda t, arm=arm: CROSSING[arm](t - COMPILE[arm]) for arm in CROSSING}
    where = brentq(lambda t: math.log(moved["equivariant"](t) / moved["augmented"](t)), 31.0, 110.0)
    assert [change.to for change in course.changes] == ["equivariant"]
    # The shifted laws are no straight lines; between two of the budgets (5% apart) they bend by
    # less than 1%.
    assert course.changes[0].seconds.value == pytest.approx(where, rel=0.01)
    assert course.seconds[-1] == pytest.approx(LIMIT + min(COMPILE.values()))
    # Without compilation nothing moves.
    assert weighed.course == only(runs(CROSSING)).course


def test_parallel_laws_never_change_hands() -> None:
    weighed = only(runs({"equivariant": law(4.0, 0.5), "augmented": law(5.0, 0.5)}, seeds=6))
    assert weighed.gap.lead_changes == []
    assert weighed.course is not None
    assert {weighed.course.ahead(seconds) for seconds in weighed.course.seconds} == {"equivariant"}


def test_exchanged_arms_turn_the_change_round() -> None:
    (change,) = only(runs(CROSSING)).gap.lead_changes
    swapped = {"equivariant": CROSSING["augmented"], "augmented": CROSSING["equivariant"]}
    (other,) = only(runs(swapped)).gap.lead_changes
    assert (change.to, other.to) == ("equivariant", "augmented")
    # The grids of the two differ (each arm keeps its own step time); both are exact for power laws.
    assert change.seconds.value == pytest.approx(other.seconds.value, rel=1e-9)


def test_the_interval_of_the_change_covers() -> None:
    generator = np.random.default_rng(2)
    trials, covered = 80, 0
    for _ in range(trials):
        changes = only(runs(CROSSING, seeds=4, noise=0.1, generator=generator)).gap.lead_changes
        covered += any(
            (c.seconds.low or 0.0) <= T_STAR <= (c.seconds.high or math.inf) for c in changes
        )
    # 95% of 80 is 76 with a standard deviation of 1.9; four of them below.
    assert covered >= 68


def bands() -> st.SearchStrategy[Band]:
    mids = st.lists(st.floats(-1, 1).filter(lambda x: abs(x) > 1e-3), min_size=2, max_size=12)

    def build(mid: list[float], half: list[float]) -> Band:
        middle, width = np.array(mid), np.array(half[: len(mid)])
        return Band(middle, middle - width, middle + width, np.zeros_like(middle))

    return st.builds(build, mids, st.lists(st.floats(0.01, 1), min_size=12, max_size=12))


@settings(max_examples=150, deadline=None)
@given(bands())
def test_changes_are_the_turns_of_what_is_decided(band: Band) -> None:
    grid = np.arange(float(len(band.mid)))
    turns = lead_changes(grid, band)
    decided = [
        turn
        for turn in turns
        if turn.log_seconds.low is not None and turn.log_seconds.high is not None
    ]
    signs = [
        int(np.sign(mid))
        for mid, low, high in zip(band.mid, band.low, band.high, strict=True)
        if low > 0 or high < 0
    ]
    assert len(decided) == sum(first != second for first, second in pairwise(signs))
    assert len(turns) - len(decided) <= 2
    # One arm at a time, from who the estimate has ahead at the start to who it has at the end.
    arms = [turn.to for turn in turns]
    assert all(first != second for first, second in pairwise(arms))
    assert (len(turns) % 2 == 1) == (np.sign(band.mid[0]) != np.sign(band.mid[-1]))
    places = [turn.log_seconds.value for turn in turns]
    assert places == sorted(places)
    for turn in turns:
        where, low, high = turn.log_seconds.value, turn.log_seconds.low, turn.log_seconds.high
        assert 0 <= where <= grid[-1]
        assert low is None or low <= where
        assert high is None or where <= high
    mirrored = lead_changes(grid, Band(-band.mid, -band.high, -band.low, band.p))
    assert [turn.log_seconds for turn in mirrored] == [turn.log_seconds for turn in turns]
    assert all(turn.to != other.to for turn, other in zip(turns, mirrored, strict=True))


def test_wandering_about_zero_is_no_change_and_the_end_alone_is_an_open_one() -> None:
    grid, wide = np.arange(6.0), np.full(6, 0.5)

    def turns(mid: list[float]) -> list[tuple[str, bool, bool]]:
        middle = np.array(mid)
        found = lead_changes(grid, Band(middle, middle - wide, middle + wide, wide))
        return [
            (turn.to, turn.log_seconds.low is None, turn.log_seconds.high is None) for turn in found
        ]

    assert turns([1.0, 0.1, -0.1, 0.2, -0.2, 1.0]) == []
    assert turns([1.0, 0.1, -0.1, 0.2, -0.2, -1.0]) == [("equivariant", False, False)]
    assert turns([1.0, 0.1, -0.1, 0.2, -0.2, -0.3]) == [("equivariant", False, True)]
    assert turns([-0.1, 0.1, 0.2, 0.3, 0.2, 0.1]) == [("augmented", True, True)]


def test_without_step_times_there_is_no_course() -> None:
    untimed = {"samples_per_second": None, "step_seconds": None}
    weighed = only(runs(CROSSING, throughput=untimed, budget={"kind": "steps", "limit": 500.0}))
    assert weighed.course is None
    assert weighed.gap.lead_changes == []
    with pytest.raises(ValueError, match="no step time"):
        weighed.curves.at_equal_seconds(np.zeros(1))


def test_losses_that_no_float_can_set_in_relation_leave_the_ratio_open() -> None:
    apart = {
        "equivariant": lambda seconds: 1e300 / seconds,
        "augmented": lambda seconds: 1e-300 / seconds,
    }
    weighed = only(runs(apart, seeds=2, noise=0.1, generator=np.random.default_rng(7)))
    assert weighed.gap.loss_ratio.censored == "above"
    assert weighed.gap.loss_ratio.value is None
    assert weighed.gap.behind == "equivariant"


def test_an_arm_that_diverged_at_every_seed_leaves_no_change() -> None:
    records = runs({"equivariant": CROSSING["equivariant"]}, seeds=2)
    records += runs({"augmented": CROSSING["augmented"]}, seeds=2, status="diverged")
    weighed = only(records)
    assert weighed.gap.lead_changes == []
    assert weighed.course is None


def test_an_extension_of_one_arm_adds_no_budget() -> None:
    records = runs(CROSSING)
    longer = runs({"equivariant": CROSSING["equivariant"]})[0]
    steps = [step * 4 for step in STEPS]
    extended = make_run(
        "equivariant",
        lambda step: CROSSING["equivariant"](step * TAU["equivariant"]),
        steps,
        tau=TAU["equivariant"],
        run_id="longer",
        created="2026-01-03T03:04:05Z",
        limit=4 * LIMIT,
        budget={"extends": LIMIT},
    )
    assert longer.recipe == extended.recipe
    course, before = only([*records, extended]).course, only(records).course
    assert course is not None
    assert before is not None
    np.testing.assert_allclose(course.seconds, before.seconds, rtol=1e-9)
