"""Two sides compared: every way in which a comparison can fail has its own verdict."""

from __future__ import annotations

import math

import pytest
from toy_samples import CONTEXT, noisy, rounds, seeds, side

from equivbench.gate.compare import Judgement, compare
from equivbench.gate.samples import Side, Unreadable

STEADY = [1.0] * 8


def judged(baseline: Side, candidate: Side, **options: object) -> dict[str, Judgement]:
    settings: dict[str, object] = {"thresholds": {}, **options}
    found = compare(baseline, candidate, **settings)  # type: ignore[arg-type]
    return {each.benchmark: each for each in found}


def verdicts(baseline: Side, candidate: Side, **options: object) -> dict[str, str]:
    return {name: each.verdict for name, each in judged(baseline, candidate, **options).items()}


def test_a_vanished_benchmark_is_missing_and_an_added_one_is_new() -> None:
    kept, gone, added = rounds(STEADY), rounds(STEADY, name="gone"), rounds(STEADY, name="added")
    assert verdicts(side(kept, gone), side(kept, added)) == {
        "work": "unchanged",
        "gone": "missing",
        "added": "new",
    }


def test_a_vanished_seed_is_missing() -> None:
    assert verdicts(side(seeds([1.0, 1.0, 1.0])), side(seeds([1.0, 1.0]))) == {"work": "missing"}
    assert verdicts(side(seeds([1.0, 1.0])), side(seeds([1.0, 1.0, 1.0]))) == {"work": "unchanged"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 0.0])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_value_that_cannot_be_has_failed(value: float, swapped: bool) -> None:
    sides = side(rounds(STEADY)), side(rounds([*STEADY[1:], value]))
    found = judged(*(sides[::-1] if swapped else sides))["work"]
    assert found.verdict == "failed"
    assert ("baseline" if swapped else "candidate") in found.reason


def test_a_loss_of_zero_or_below_has_failed() -> None:
    assert verdicts(side(seeds([1.0])), side(seeds([0.0]))) == {"work": "failed"}
    assert verdicts(side(seeds([1.0])), side(seeds([-1.0]))) == {"work": "failed"}


def test_no_rounds_at_all_have_failed() -> None:
    assert verdicts(side(rounds(STEADY)), side(rounds([]))) == {"work": "failed"}


@pytest.mark.parametrize("what", ["machine", "benchmark version"])
def test_another_context_is_incomparable_and_says_which(what: str) -> None:
    found = judged(side(rounds(STEADY)), side(rounds(STEADY, context={**CONTEXT, what: "other"})))[
        "work"
    ]
    assert found.verdict == "incomparable"
    assert what in found.reason
    assert found.change is None


def test_equal_contexts_meet_before_unequal_ones() -> None:
    here, there = rounds(STEADY), rounds(STEADY, context={**CONTEXT, "machine": "other"})
    found = compare(side(there, here), side(here, there), thresholds={})
    assert [each.verdict for each in found] == ["unchanged", "unchanged"]


def test_a_dirty_tree_is_refused_unless_allowed() -> None:
    clean, dirty = side(rounds(STEADY)), side(rounds(STEADY, dirty=True))
    assert verdicts(clean, dirty) == {"work": "dirty"}
    assert verdicts(dirty, clean) == {"work": "dirty"}
    assert verdicts(clean, dirty, allow_dirty=True) == {"work": "unchanged"}


def test_nothing_to_compare_has_failed() -> None:
    assert [each.verdict for each in compare(Side(()), Side(()), thresholds={})] == ["failed"]


def test_only_new_benchmarks_are_no_comparison() -> None:
    assert "failed" in verdicts(Side(()), side(rounds(STEADY))).values()


def test_an_unreadable_file_has_failed_beside_what_can_be_read() -> None:
    candidate = Side((rounds(STEADY),), (Unreadable("cut.json", "cut.json is empty"),))
    assert verdicts(side(rounds(STEADY)), candidate) == {"cut.json": "failed", "work": "unchanged"}


@pytest.mark.parametrize("factor", [1.06, 1 / 1.06])
def test_a_control_that_moves_makes_its_session_inconclusive(factor: float) -> None:
    baseline = side(
        rounds(STEADY, name="control", control=True), rounds(STEADY), seeds([1.0], name="loss")
    )
    moved = rounds([factor] * 8, name="control", control=True)
    candidate = side(moved, rounds([1.5] * 8), seeds([1.0], name="loss"))
    assert verdicts(baseline, candidate) == {
        "control": "inconclusive",
        "work": "inconclusive",
        "loss": "unchanged",
    }


def test_a_control_that_stays_lets_the_verdicts_stand() -> None:
    control = rounds(noisy(1.0, 0.003, 8, 1), name="control", control=True)
    assert (
        verdicts(side(control, rounds(STEADY)), side(control, rounds([1.5] * 8)))["work"]
        == "regression"
    )


def test_a_control_with_one_disturbed_round_has_not_moved() -> None:
    control = rounds(STEADY, name="control", control=True)
    disturbed = rounds([1.5, *STEADY[1:]], name="control", control=True)
    assert (
        verdicts(side(control, rounds(STEADY)), side(disturbed, rounds([1.2] * 8)))["work"]
        == "regression"
    )


def test_a_vanished_control_is_missing() -> None:
    control = rounds(STEADY, name="control", control=True)
    assert verdicts(side(control, rounds(STEADY)), side(rounds(STEADY)))["control"] == "missing"


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_side_that_can_never_decide_has_failed(count: int, swapped: bool) -> None:
    sides = side(rounds(STEADY)), side(rounds(STEADY[:count]))
    found = judged(*(sides[::-1] if swapped else sides))["work"]
    assert found.verdict == "failed"
    assert "can never decide" in found.reason
    assert ("baseline" if swapped else "candidate") in found.reason


def test_one_seed_that_shows_no_noise_has_failed() -> None:
    alone = side(seeds([1.0], deterministic=False))
    assert verdicts(alone, alone) == {"work": "failed"}


def test_more_benchmarks_need_more_evidence_each_and_say_what_they_could_have_shown() -> None:
    def found(others: int) -> Judgement:
        more = [rounds(STEADY, name=f"more {number}") for number in range(others)]
        first, second = noisy(1.0, 0.02, 8, 1), noisy(1.09, 0.02, 8, 2)
        return judged(side(rounds(first), *more), side(rounds(second), *more))["work"]

    few, many = found(0), found(200)
    assert few.level is not None
    assert many.level is not None
    assert few.power is not None
    assert many.power is not None
    assert few.level < many.level
    assert few.power < many.power
    # All misses of a suite together: one false alarm in 200.
    assert 1 - many.level == pytest.approx((1 - few.level) / 201)


def test_other_versions_are_named() -> None:
    before = rounds(STEADY, beside={"torch": "2.11.0", "python": "3.11"})
    after = rounds(STEADY, beside={"torch": "2.13.0", "python": "3.11"})
    reason = judged(side(before), side(after))["work"].reason
    assert reason.endswith("; with torch 2.11.0 against 2.13.0")
    assert "with" not in judged(side(before), side(before))["work"].reason.partition(";")[2]


def test_the_threshold_is_the_metrics_own() -> None:
    sides = side(rounds(STEADY)), side(rounds([1.04] * 8))
    assert verdicts(*sides) == {"work": "unchanged"}
    assert verdicts(*sides, thresholds={"seconds": 0.03}) == {"work": "regression"}


def test_figures_are_given_in_the_metrics_own_sense() -> None:
    rates = {"metric": "samples_per_second"}
    found = judged(side(seeds([100.0] * 2, **rates)), side(seeds([80.0] * 2, **rates)))["work"]
    assert found.verdict == "regression"
    assert found.change == pytest.approx(-0.2)
    assert found.low == pytest.approx(-0.2)
    assert (found.baseline, found.candidate) == (pytest.approx(100.0), pytest.approx(80.0))
