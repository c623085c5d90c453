"""What is compared with what: never across machines, data, rules, presets, budgets, options or
kernels."""

from __future__ import annotations

import pytest
from factories import make_record, make_test, make_trace

from equivbench.errors import FailedError, IncomparableError
from equivbench.gap.efficiency import efficiency_gap
from equivbench.gap.pairing import pair_up
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
        {"rules_version": 2},
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
        {"rules_version": 2},
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


def test_a_later_contest_of_a_seed_counts_and_not_the_older_one() -> None:
    newer = both(created="2026-02-01T00:00:00Z", run_id="newer", contest="later")
    (comparison,) = pair_up([*newer, *both(contest="earlier")]).matched
    runs = (comparison.equivariant[0], comparison.augmented[0])
    assert [run.record.run_id for run in runs] == ["newer", "newer"]
    assert comparison.undecidable is None


def test_partners_are_of_one_contest_even_where_one_arm_was_run_again() -> None:
    alone = make_record(arm="equivariant", created="2026-02-01T00:00:00Z", contest="later")
    (comparison,) = pair_up([alone, *both(contest="earlier")]).matched
    assert comparison.equivariant[0].record.contest == "earlier"
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
    assert gap.behind is None
    assert gap.lead.arm is None
    assert "did not take turns in one contest" in gap.lead.reason


def test_recipes_are_not_mixed_over_seeds() -> None:
    old = [make_record(arm="augmented", seed=1), make_record(arm="equivariant", seed=1)]
    new = [
        make_record(arm=arm, seed=0, created="2026-02-01T00:00:00Z", recipe={"learning_rate": 3e-3})
        for arm in ("equivariant", "augmented")
    ]
    (comparison,) = pair_up([*old, *new]).matched
    assert comparison.seeds == (0,)
    assert any("another recipe" in note for note in comparison.notes)


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
        trace=make_trace(lambda step: 4.0 * step**-0.5, [10, 1000, 2000], 0.1, 32),
    )
    (comparison,) = pair_up([*both(), longer]).matched
    points, _ = comparison.equivariant[0].trace()
    assert [point.step for point in points] == [10, 30, 100, 300, 1000, 2000]
    assert points[0].test.total == pytest.approx(5.0 * 10**-0.5)


def test_points_without_a_logarithm_are_left_out() -> None:
    trace = make_trace(lambda step: 1.0, [0, 1, 2], 0.1, 32)
    trace[1]["test"]["total"] = None
    (comparison,) = pair_up([make_record(trace=trace), make_record(arm="augmented")]).matched
    assert [point.step for point in comparison.equivariant[0].trace()[0]] == [2]
