"""Plausibility: a sound record has no problem, and every single defect is named. Those that are
shipped are in ``test_submissions.py``."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from factories import BASELINE, PART, make_record, make_rungs, make_test, make_trace

from equivbench.records.evaluations import FINALS
from equivbench.records.plausibility import incomparable, problems, remarks
from equivbench.records.schema import RULES_VERSION, GroupErrors, Rung, RunRecord
from equivbench.records.schema import TestPart as Part

REASONS = {
    "flops_per_sample": "not counted",
    "energy_joules": "the device reports no energy",
}


def sound(**overrides: Any) -> RunRecord:
    """A record without a problem, fields changed by keyword."""
    return make_record(**{"reasons": REASONS, **overrides})


def with_groups(**change: Any) -> RunRecord:
    """A record whose final result has group errors that average to it, ``change`` apart."""
    record = sound()
    for test in (record.final, record.rungs[-1].test):
        values = {
            name: [0.4 * getattr(test, name), 1.2 * getattr(test, name)]
            for name in ("total", "equivariance")
        }
        test.groups = GroupErrors(**{"weights": [1.0, 3.0], **values, **change})
    return record


def test_sound_record_has_no_problem() -> None:
    assert problems(sound()) == []
    # The data set and the pair of the tests are nobody's.
    assert len(remarks(sound())) == 2
    assert "'toy-set' is not known here" in remarks(sound())[0]
    assert "not checked: the pair toy/pair is not installed" in remarks(sound())[1]
    assert incomparable(sound()) is None


def test_sound_groups_have_no_problem() -> None:
    assert problems(with_groups()) == []


def test_sound_unfinished_record_has_no_problem() -> None:
    record = sound(
        status="diverged",
        reason="loss is nan at step 500",
        final=None,
        final_on_part=None,
        final_raw=None,
        final_ema=None,
        rungs=make_rungs(lambda step: 1.0, [100, 250], 0.1, 32)[:-1],
        steps=500,
        samples=16000,
        epochs=16.0,
        trace=make_trace(lambda step: 1.0, [10, 100], 0.1, 32),
        budget={"spent": 50.0},
        clock={"train": 45.0, "data": 5.0, "wall": 53.0},
        reasons={**REASONS, **dict.fromkeys(FINALS, "diverged")},
    )
    assert problems(record) == []


DEFECTS: dict[str, tuple[dict[str, Any], str]] = {
    "clock parts": ({"clock": {"wall": 103.1}}, "add up"),
    "negative part": ({"clock": {"checkpoint": -0.5, "wall": 102.0}}, "clock.checkpoint is -0.5"),
    "augmented more than all": (
        {"recipe": {"augmentation_fraction": 1.5}},
        "augmentation_fraction",
    ),
    "rewarded for what breaks the symmetry": (
        {"recipe": {"symmetry_loss": -1.0}},
        "recipe.symmetry_loss is -1",
    ),
    "compile unmeasured": ({"recipe": {"compile": "default"}}, "clock.compile is zero"),
    "lost without restart": ({"lost_seconds": 3.0}, "restarts"),
    "spent": ({"budget": {"spent": 90.0}}, "budget.spent is 90"),
    "overshoot": ({"budget": {"limit": 99.0}}, "budget.overshoot"),
    "extends": ({"budget": {"extends": 100.0}}, "budget.extends is 100, not below"),
    "block": ({"throughput": {"blocks": [0.1, 0.0]}}, "a block that took no time"),
    "budget unspent": ({"budget": {"limit": 120.0}}, "100 of 120 seconds are spent"),
    "steps": ({"budget": {"kind": "steps", "limit": 900.0, "spent": 900.0}}, "steps is 1000"),
    "too many samples": ({"samples": 32001}, "do not fit"),
    "epochs": ({"epochs": 3.2}, "epochs"),
    "budget of half a step": (
        {"budget": {"kind": "steps", "limit": 999.5, "spent": 1000.0, "overshoot": 0.5}},
        "budget.limit is 999.5 steps, which are whole numbers",
    ),
    "rung of half a step": (
        {
            "budget": {"kind": "steps", "limit": 1000.0, "spent": 1000.0},
            "rungs": make_rungs(lambda step: 5.0 * step**-0.5, [37, 1000], 0.1, 32),
        },
        "rung of 3.7 steps, which are whole numbers",
    ),
    "rate of other blocks": (
        {"throughput": {"blocks": [0.1, 0.2]}},
        "throughput.blocks make it 213.3",
    ),
    "steps slower than any block": (
        {"throughput": {"step_seconds": {"p10": 0.11, "p50": 0.11, "p90": 0.11}}},
        "longer than any of throughput.blocks",
    ),
    "threads of another key": ({"environment": {"threads": 3}}, "is of 2 threads"),
    "a driver without a GPU": ({"environment": {"driver": "580.1"}}, "no GPU was used"),
    "no version": ({"environment": {"packages": {"torch": "newest"}}}, "is no version of torch"),
    "no commit": ({"git": {"commit": "main"}}, "git.commit 'main' is not a hash"),
    "half of the code known": ({"git": {"dirty": None}}, "both known or both null"),
    "energy of a CPU": ({"energy_joules": 5.0}, "no energy counter is read on a CPU"),
    "power of no device": (
        {"energy_joules": 1e9, "environment": {"device": "NVIDIA H100"}},
        "which no device draws",
    ),
    "less than the weights": (
        {"model": {"parameters": 20_000_000}},
        "training 20000000 parameters takes 160000000",
    ),
    "reason of what is measured": (
        {"reasons": {**REASONS, "final.total": "lost"}},
        "reasons says why final.total is null, which is not null",
    ),
    "reason of nothing": (
        {"reasons": {**REASONS, "finale": "lost"}},
        "reasons says why finale is null, which is not in the record",
    ),
    "instant inference": ({"inference": {"samples_per_second": 1e9}}, "times those of training"),
    "ten times as fast": (
        {
            "throughput": {
                "samples_per_second": 3200.0,
                "step_seconds": {"p10": 0.01, "p50": 0.01, "p90": 0.01},
                "blocks": [0.01] * 8,
            }
        },
        "whose machine was not busy",
    ),
    "no parameters": ({"model": {"parameters": 0}}, "model.parameters is 0"),
    "memory": ({"memory": {"peak_bytes": 0}}, "peak_bytes"),
    "negative energy": ({"energy_joules": -1.0}, "energy_joules"),
    "steps out of order": (
        {"throughput": {"step_seconds": {"p10": 0.2, "p50": 0.1, "p90": 0.3}}},
        "not in order",
    ),
    "throughput": ({"throughput": {"samples_per_second": 1000.0}}, "allow"),
    "completed without result": (
        {"final": None, "reasons": {**REASONS, "final": "lost"}},
        "final is null",
    ),
    "completed with reason": ({"reason": "because"}, "reason for not completing"),
    "failed without reason": ({"status": "failed"}, "failed without a reason"),
    "diverged with result": ({"status": "diverged", "reason": "nan"}, "there is a final result"),
    "run id without seed": ({"run_id": "small-1"}, "seed 0"),
    "run id with a longer seed": ({"run_id": "small-seed10"}, "seed 0"),
    "run id without preset": ({"run_id": "big-seed0"}, "preset 'small'"),
    "hostile run id": ({"run_id": "../small-seed0"}, "cannot be part of a file name"),
    "local time": ({"created": "2026-01-02T03:04:05+02:00"}, "not an ISO 8601 time in UTC"),
    "no time": ({"created": "yesterday"}, "not an ISO 8601 time in UTC"),
    "checksum": ({"dataset": {"sha256": "abc"}}, "not a SHA-256"),
    "null without reason": (
        {"reasons": {"energy_joules": "x"}},
        "flops_per_sample is null",
    ),
    "refuted by nothing": ({"model": {"symmetry_verified": False}}, "symmetry_reason"),
    "stalled": ({"machine_share": {"stalled_seconds": 7.0}}, "clock.stalled is 0"),
    "spread of steps": ({"machine_share": {"p90_over_p10": 0.5}}, "below 1"),
    "switches": ({"machine_share": {"switches": -1.0}}, "machine_share.switches is -1"),
    "steal": ({"machine_share": {"steal": 1.5}}, "more than all"),
    "over the best untrained": (
        {"baselines": {"zero": BASELINE, "linear": 0.9 * BASELINE}},
        "imply best untrained predictors",
    ),
    "more samples than there are": (
        {"dataset": {"sizes": {"train": 1000, "test": 99}}},
        "the test split has 99",
    ),
    "raw result of a part": (
        {"final_raw": {**make_test(0.2), **PART}},
        "the final results differ in samples or rotations",
    ),
    "final on another part": (
        {"final_on_part": make_test(5.0 * 1000**-0.5)},
        "the rungs and trace differ in samples or rotations",
    ),
    "no final of a part": (
        {"final_on_part": None, "reasons": {**REASONS, "final_on_part": "lost"}},
        "final_on_part is null",
    ),
}


@pytest.mark.parametrize(("overrides", "sentence"), DEFECTS.values(), ids=DEFECTS)
def test_defect_is_named(overrides: dict[str, Any], sentence: str) -> None:
    assert any(sentence in problem for problem in problems(sound(**overrides)))


@pytest.mark.parametrize(
    "overrides",
    [
        {"model": {"name": "p\u0430inn"}},
        {"model": {"kernels": "\uff54orch"}},
        {"dataset": {"name": "gfn2\u2010small"}},
        {"environment": {"packages": {"t\u03bfrch": "2.0"}}},
        {"variant": {"forces": "dire\u0441t"}},
        {"baselines": {"z\u0435ro": 10.0}},
        {"out_of_distribution": {"h\u043ftter": make_test(0.5)}},
    ],
    ids=lambda overrides: next(iter(overrides)),
)
def test_a_name_that_can_be_taken_for_another_is_refused(overrides: dict[str, Any]) -> None:
    found = problems(sound(**overrides))
    assert any("names are of ASCII characters" in problem for problem in found)


@pytest.mark.parametrize("excuse", [{"steps": 99}, {"machine_share": {"steal": 0.5}}])
def test_rates_of_few_steps_or_of_a_busy_machine_are_not_held_against_each_other(
    excuse: dict[str, Any],
) -> None:
    instant = {"inference": {"samples_per_second": 1e9}}
    assert any("times those of training" in each for each in problems(make_record(**instant)))
    assert not any(
        "times those of training" in each for each in problems(make_record(**instant, **excuse))
    )


GROUP_DEFECTS: dict[str, tuple[dict[str, list[float]], str]] = {
    "means": ({"total": [0.5, 0.5]}, "final: groups.total average to 0.5"),
    "width": ({"total": []}, "groups.total is not one value a group"),
    "no weight": ({"weights": [0.0, 1.0]}, "must be positive"),
    "no groups": ({"weights": []}, "must be positive"),
}


@pytest.mark.parametrize(("change", "sentence"), GROUP_DEFECTS.values(), ids=GROUP_DEFECTS)
def test_groups_that_are_not_those_of_their_evaluation_are_named(
    change: dict[str, list[float]], sentence: str
) -> None:
    assert any(sentence in problem for problem in problems(with_groups(**change)))


WHERE: dict[str, Callable[[RunRecord], Any]] = {
    "trace": lambda record: record.trace[1].test,
    "trace, ema": lambda record: record.trace[1].ema,
    "rung": lambda record: record.rungs[1].test,
    "final": lambda record: record.final,
    "on part": lambda record: record.final_on_part,
    "raw": lambda record: record.final_raw,
    "ema": lambda record: record.final_ema,
}


TEST_DEFECTS: dict[str, tuple[Callable[[Any], None], str]] = {
    "parts": (lambda test: setattr(test, "twirled", test.twirled * 1.001), "is not twirled"),
    "share": (
        lambda test: setattr(test, "share", test.share * 1.001),
        "is not equivariance / total",
    ),
    "range": (lambda test: setattr(test, "share", 7.0), "share is 7, outside"),
    "negative total": (lambda test: setattr(test, "total", -1.0), "total is -1, outside"),
    "explained": (lambda test: setattr(test, "explained", 0.5), "imply baselines"),
    "of the best": (
        lambda test: setattr(test, "over_best_untrained", 0.5),
        "imply best untrained predictors",
    ),
    "samples": (lambda test: setattr(test, "samples", 0), "samples is 0"),
    "rotations": (lambda test: setattr(test, "rotations", 0), "rotations is 0"),
    "energy": (lambda test: test.errors.update(energy=-1.0), "the error of energy is -1"),
    "explained above one": (
        lambda test: setattr(test, "explained", 1.5),
        "explained is 1.5, outside",
    ),
    "null": (lambda test: setattr(test, "objective", None), "objective is null"),
    "no total": (lambda test: setattr(test, "total", None), "total is null, but"),
    "group": (lambda test: setattr(test, "group", "o3"), "rotations of different groups"),
    "outputs": (lambda test: test.errors.update(charge=1.0), "errors of other outputs"),
    "parts that are all better": (
        lambda test: test.by.update(H=Part(total=1e9, twirled=1e9, equivariance=0.0, share=0.0)),
        "outside that of all its parts",
    ),
}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(("change", "sentence"), TEST_DEFECTS.values(), ids=TEST_DEFECTS)
def test_defect_of_an_evaluation_is_named(
    change: Callable[[Any], None], sentence: str, where: str
) -> None:
    record = sound()
    change(WHERE[where](record))
    assert any(sentence in problem for problem in problems(record))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"test": make_test(0.3)}, "final is not the test of the last rung"),
        ({"budget": 90.0}, "the last rung is of 90 seconds, the budget is 100"),
        ({"step": 900, "samples": 28800}, "the last rung is at step 900 of 1000"),
        ({"train_seconds": 50.0}, "rung of 100 seconds: only 50 are spent"),
    ],
)
def test_last_rung_that_is_not_the_end_is_named(change: dict[str, Any], sentence: str) -> None:
    record = sound()
    record.rungs[-1] = msgspec.convert({**msgspec.to_builtins(record.rungs[-1]), **change}, Rung)
    assert any(sentence in problem for problem in problems(record))


@pytest.mark.parametrize("points", ["trace", "rungs"])
def test_points_that_go_back_are_named(points: str) -> None:
    record = sound()
    found = getattr(record, points)
    found[1], found[2] = found[2], found[1]
    assert any(f"{points} go" in problem and "back" in problem for problem in problems(record))


def test_points_after_the_run_are_named() -> None:
    late = sound(trace=make_trace(lambda step: step**-0.5, [10, 2000], 0.1, 32))
    assert any("the trace ends after the run" in problem for problem in problems(late))
    late = sound(rungs=make_rungs(lambda step: step**-0.5, [10, 2000], 0.1, 32))
    assert any("the rungs end after the run" in problem for problem in problems(late))


def test_null_of_a_part_is_covered_by_the_reason_of_the_whole() -> None:
    record = sound(throughput={"samples_per_second": None, "step_seconds": None})
    assert any("throughput.samples_per_second" in problem for problem in problems(record))
    record.reasons["throughput"] = "never timed"
    assert problems(record) == []


@pytest.mark.parametrize(
    "path", ["trace.1.test.objective", "trace.1.test", "trace.test.objective", "trace"]
)
def test_reason_serves_a_list_position_or_all_of_them(path: str) -> None:
    record = sound()
    record.trace[1].test.objective = None
    assert problems(record) == ["trace.1.test.objective is null and reasons has no entry for it"]
    record.reasons[path] = "measured at the end"
    assert problems(record) == []


def test_unusual_is_remarked_not_refused() -> None:
    record = sound(
        clock={"other": 10.0, "wall": 112.9},
        throughput={
            "samples_per_second": 120.0,
            "step_seconds": {"p10": 0.25, "p50": 0.25, "p90": 0.3},
            "blocks": [32 / 120] * 8,
        },
        model={"symmetry_verified": False, "symmetry_reason": "a share of 0.2"},
        git={"dirty": True},
    )
    assert problems(record) == []
    assert len(remarks(record)) == 4 + len(remarks(sound()))


def test_other_rules_are_incomparable() -> None:
    other = RULES_VERSION + 1
    assert f"rules version {other}" in str(incomparable(sound(rules_version=other)))
