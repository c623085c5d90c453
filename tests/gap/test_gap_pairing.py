"""What is compared with what: never across machines, data, rules, presets, budgets, options or
kernels."""

from __future__ import annotations

from itertools import pairwise

import pytest
from factories import PART, make_record, make_rungs, make_test
from hypothesis import given, settings
from hypothesis import strategies as st

from equivbench.errors import FailedError, IncomparableError
from equivbench.gap.efficiency import efficiency_gap
from equivbench.gap.pairing import ArmRun, arm_runs, pair_up
from equivbench.records.schema import RunRecord


def both(**overrides: object) -> list[RunRecord]:
    return [make_record(arm=arm, **overrides) for arm in ("equivariant", "augmented")]


SIZES = {"train": 1000, "validation": 100, "test": 100}


@pytest.mark.parametrize(
    "other",
    [
        {"environment": {"machine_key": "other-gpu"}},
        {"dataset": {"sha256": "1" * 64}},
        {"dataset": {"sizes": {**SIZES, "train": 500}}},
        {"rules_version": 99},
        {"preset": "dev"},
        {"budget": {"limit": 50.0}},
        {"budget": {"kind": "steps"}},
        {"variant": {"forces": "conservative"}},
        {"model": {"kernels": "fast"}},
        {"pair": "other"},
    ],
)
def test_settings_are_kept_apart(other: dict[str, object]) -> None:
    gaps = efficiency_gap([*both(), *both(**other)])
    assert len(gaps) == 2
    assert all(gap.n_seeds == 1 for gap in gaps)


@pytest.mark.parametrize(
    "other",
    [
        {"environment": {"machine_key": "other-gpu"}},
        {"budget": {"limit": 50.0}},
        {"rules_version": 99},
    ],
)
def test_arms_under_different_settings_are_incomparable(other: dict[str, object]) -> None:
    pairing = pair_up([make_record(arm="equivariant"), make_record(arm="augmented", **other)])
    assert not pairing.matched
    assert all(isinstance(problem, IncomparableError) for problem in pairing.problems)
    assert "against" in str(pairing.problems[0])


def test_one_arm_alone_is_a_missing_run() -> None:
    (problem,) = pair_up([make_record(arm="equivariant")]).problems
    assert isinstance(problem, FailedError)
    assert "augmented" in str(problem)


def test_seeds_are_paired_and_the_others_left_out_with_a_note() -> None:
    records = [make_record(arm="equivariant", seed=seed) for seed in (0, 1, 2)]
    records += [make_record(arm="augmented", seed=seed) for seed in (1, 2, 3)]
    (comparison,) = pair_up(records).matched
    assert comparison.seeds == (1, 2)
    assert len(comparison.notes) == 2


def test_no_common_seed_is_a_missing_run() -> None:
    pairing = pair_up(
        [make_record(arm="equivariant", seed=0), make_record(arm="augmented", seed=1)]
    )
    assert not pairing.matched
    assert "same seeds" in str(pairing.problems[0])


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_unfinished_runs_take_no_part(status: str) -> None:
    pairing = pair_up(
        [
            *both(),
            make_record(arm="equivariant", seed=1, status=status),
            make_record(arm="augmented", seed=1),
        ]
    )
    assert pairing.matched[0].seeds == (0,)
    assert any("left out" in note for note in pairing.matched[0].notes)


HOURS = {
    f"2026-01-0{day}T{hour:02d}:00:00Z": 24 * day + hour for day in (2, 3) for hour in range(24)
}
"""Times, with the hours that they lie apart."""


def test_a_second_contest_of_a_seed_is_a_repetition_and_replaces_nothing() -> None:
    first = both(contest="first", created="2026-01-02T00:00:00Z")
    again = [
        make_record(
            arm=arm,
            contest="second",
            created="2026-01-02T01:00:00Z",
            run_id="again",
            final=make_test(0.5),
        )
        for arm in ("equivariant", "augmented")
    ]
    (alone,), (gap,) = efficiency_gap(first), efficiency_gap([*again, *first])
    assert gap.loss_ratio == alone.loss_ratio
    assert gap.contests == ["first"]
    assert (alone.repetitions, gap.n_seeds) == ({"equivariant": {}, "augmented": {}}, 1)
    losses = gap.repetitions["equivariant"][0]
    assert losses == [first[0].final.total, 0.5]
    assert any("run more than once" in note for note in gap.notes)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(sorted(HOURS)), min_size=1, max_size=6, unique=True))
def test_contests_more_than_half_a_day_apart_are_rows_of_their_own(times: list[str]) -> None:
    records = [
        record
        for seed, created in enumerate(times)
        for record in both(seed=seed, created=created, contest=created)
    ]
    gaps = efficiency_gap(records)
    ordered = sorted(times)
    apart = sum(HOURS[after] - HOURS[before] > 12 for before, after in pairwise(ordered))
    assert len(gaps) == 1 + apart
    # Every contest is in one row, and rows are in order of time.
    assert [contest for gap in gaps for contest in gap.contests] == ordered
    assert [gap.day for gap in gaps] == [gap.contests[0][:10] for gap in gaps]


@pytest.mark.parametrize(
    ("other", "rows"),
    [
        ({"commit": "a" * 40, "tree": "2" * 40}, 2),
        ({"commit": "a" * 40, "tree": "1" * 40}, 1),
        ({"commit": "a" * 40, "tree": None}, 2),
        ({"dirty": True}, 2),
    ],
)
def test_another_code_is_a_row_of_its_own_and_another_commit_of_the_same_code_is_not(
    other: dict[str, object], rows: int
) -> None:
    gaps = efficiency_gap([*both(), *both(seed=1, contest="later", git=other)])
    assert len(gaps) == rows
    assert sorted(seed for gap in gaps for seed in gap.seeds) == [0, 1]
    assert {gap.commit for gap in gaps} <= {"0" * 40, other.get("commit", "0" * 40)}


def test_an_arm_that_ran_alone_another_day_is_said_to_be_left_out() -> None:
    alone = make_record(arm="equivariant", created="2026-02-01T00:00:00Z", contest="later")
    pairing = pair_up([alone, *both(contest="earlier")])
    (comparison,) = pairing.matched
    assert comparison.equivariant[0].record.contest == "earlier"
    assert "the equivariant arm was run alone on 2026-02-01" in str(pairing.problems[0])


def test_partners_are_of_one_contest_where_there_is_one() -> None:
    unpaired = make_record(arm="equivariant", created="2026-01-02T00:00:00Z", contest="unpaired")
    (comparison,) = pair_up([unpaired, *both(contest="paired")]).matched
    assert comparison.equivariant[0].record.contest == "paired"
    assert comparison.undecidable is None


def test_arms_that_took_no_turns_are_shown_and_decide_nothing() -> None:
    laws = {"equivariant": 0.5, "augmented": 1.0}
    records = [
        make_record(
            arm=arm, seed=seed, contest=f"{seed} {arm}", final=make_test(loss * (1 + seed / 100))
        )
        for arm, loss in laws.items()
        for seed in range(6)
    ]
    (gap,) = efficiency_gap(records)
    assert gap.loss_ratio.value == pytest.approx(0.5)
    assert not gap.decided
    assert "did not take turns in one contest" in gap.reason


def test_partners_are_those_of_the_same_kernels_contest() -> None:
    """The augmented arm ran once beside each backend of the other."""
    records = [
        record
        for kernels, loss in (("e3nn", 0.5), ("fused", 0.25))
        for record in (
            make_record(arm="equivariant", model={"kernels": kernels}, contest=kernels),
            make_record(
                arm="augmented",
                model={"kernels": "none"},
                contest=kernels,
                final=make_test(loss),
                run_id=kernels,
            ),
        )
    ]
    gaps = efficiency_gap(records)
    assert [gap.kernels["equivariant"] for gap in gaps] == ["e3nn", "fused"]
    assert [gap.loss_augmented.value for gap in gaps] == [pytest.approx(0.5), pytest.approx(0.25)]
    assert all(gap.repetitions == {"equivariant": {}, "augmented": {}} for gap in gaps)


def test_recipes_are_not_mixed_over_seeds() -> None:
    old = [make_record(arm="augmented", seed=1), make_record(arm="equivariant", seed=1)]
    new = [
        make_record(arm=arm, seed=0, created="2026-01-02T04:00:00Z", recipe={"learning_rate": 3e-3})
        for arm in ("equivariant", "augmented")
    ]
    (comparison,) = pair_up([*old, *new]).matched
    assert comparison.seeds == (0,)
    assert any("another recipe" in note for note in comparison.notes)


def test_a_single_later_record_takes_the_place_of_no_measurement() -> None:
    """Whoever made it: of another code, or with another recipe."""
    three = [make_record(arm="augmented", seed=seed) for seed in range(3)]
    for other in ({"git": {"tree": "2" * 40}}, {"recipe": {"learning_rate": 3e-3}}):
        later = make_record(
            arm="augmented", created="2026-01-02T05:00:00Z", contest="later", **other
        )
        notes: list[str] = []
        runs = arm_runs("augmented", [*three, later], notes)
        assert [run.record for run in runs.values()] == three
        assert len(notes) == 1
        assert notes[0].startswith("left out 1 record of the augmented arm")


def test_the_extension_of_a_repetition_prolongs_no_other_run() -> None:
    later = {"contest": "later", "created": "2026-01-02T04:00:00Z"}
    longer = make_record(
        run_id="longer",
        budget={"limit": 200.0, "extends": 100.0},
        rungs=make_rungs(lambda step: 4.0 * step**-0.5, [10, 1000, 2000], 0.1, 32),
        **later,
    )
    (comparison,) = pair_up(
        [*both(contest="first"), *both(**later, run_id="again"), longer]
    ).matched
    assert comparison.equivariant[0].record.contest == "first"
    assert comparison.equivariant[0].longer is None


def test_a_network_without_kernels_is_compared_with_every_backend_of_the_other_arm() -> None:
    records = [make_record(arm="augmented", model={"kernels": "none"})]
    records += [
        make_record(arm="equivariant", model={"kernels": name}) for name in ("e3nn", "fused")
    ]
    kernels = [comparison.kernels for comparison in pair_up(records).matched]
    assert kernels == [{"equivariant": name, "augmented": "none"} for name in ("e3nn", "fused")]


def test_third_arms_take_no_part() -> None:
    assert len(pair_up([*both(), make_record(arm="twirled")]).matched) == 1
    assert not pair_up([make_record(arm="twirled")]).problems


def test_an_extension_prolongs_the_curve_without_replacing_it() -> None:
    longer = make_record(
        run_id="longer",
        budget={"limit": 200.0, "extends": 100.0},
        rungs=make_rungs(lambda step: 4.0 * step**-0.5, [10, 1000, 2000], 0.1, 32),
    )
    (comparison,) = pair_up([*both(), longer]).matched
    results = comparison.equivariant[0].results()
    assert [each.step for each in results] == [10, 30, 100, 300, 1000, 2000]
    assert results[0].test.total == pytest.approx(5.0 * 10**-0.5)
    assert all(each.test.samples == PART["samples"] for each in results)


def test_an_extension_alone_is_no_result_at_the_budget_it_extends() -> None:
    longer = make_record(budget={"limit": 200.0, "extends": 100.0})
    pairing = pair_up([longer, make_record(arm="augmented")])
    assert not pairing.matched
    assert "no seed was finished by both arms" in str(pairing.problems[0])


def test_points_without_a_logarithm_are_left_out() -> None:
    rungs = make_rungs(lambda step: 1.0, [0, 1, 2], 0.1, 32)
    rungs[1]["test"]["total"] = None
    (comparison,) = pair_up([make_record(rungs=rungs), make_record(arm="augmented")]).matched
    assert [each.step for each in comparison.equivariant[0].results()] == [2]


@pytest.mark.parametrize("weights", ["annealed", "raw", "ema"])
def test_each_kind_of_weights_has_its_own_curve(weights: str) -> None:
    run = ArmRun(make_record())
    start = {"annealed": 5.0, "raw": 6.0, "ema": 5.4}[weights]
    for each in run.results(weights):
        # The records of two seeds differ by 1e-13.
        assert each.test.total == pytest.approx(start * each.step**-0.5, rel=1e-9)
