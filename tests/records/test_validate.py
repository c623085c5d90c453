"""Plausibility: a sound record has no problem, and every single defect is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from factories import make_record, make_trace

from equivbench.records.plausibility import incomparable, problems, remarks
from equivbench.records.schema import RunRecord
from equivbench.records.store import read_record

REFERENCE = sorted((Path(__file__).parents[2] / "results").rglob("*.json"))
REASONS = {
    "flops_per_sample": "not counted",
    "energy_joules": "the device reports no energy",
    "groups": "one group only",
}


def sound(**overrides: Any) -> RunRecord:
    """A record without a problem, fields changed by keyword."""
    return make_record(**{"reasons": REASONS, **overrides})


def with_groups(total: float = 5.0 * 1000**-0.5) -> dict[str, Any]:
    """Group errors whose weighted mean is the trace's total."""
    trace = sound().trace
    return {
        "weights": [1.0, 3.0],
        "total": [[0.4 * point.test.total, 1.2 * point.test.total] for point in trace[:-1]]
        + [[0.4 * total, 1.2 * total]],
        "equivariance": [
            [0.4 * point.test.equivariance, 1.2 * point.test.equivariance] for point in trace
        ],
    }


def test_sound_record_has_no_problem() -> None:
    assert problems(sound()) == []
    # The data set of the tests is nobody's.
    assert all("'toy-set' is not known here" in remark for remark in remarks(sound()))
    assert incomparable(sound()) is None


def test_sound_groups_have_no_problem() -> None:
    assert problems(sound(groups=with_groups())) == []


def test_sound_unfinished_record_has_no_problem() -> None:
    record = sound(
        status="diverged",
        reason="loss is nan at step 500",
        final=None,
        final_raw=None,
        steps=500,
        samples=16000,
        epochs=16.0,
        trace=make_trace(lambda step: 1.0, [10, 100], 0.1, 32),
        budget={"spent": 50.0},
        clock={"train": 45.0, "data": 5.0, "wall": 53.0},
        reasons={**REASONS, "final": "diverged", "final_raw": "diverged"},
    )
    assert problems(record) == []


@pytest.mark.parametrize("file", REFERENCE, ids=lambda file: str(file.name))
def test_reference_record_has_no_problem(file: Path) -> None:
    assert problems(read_record(file)) == []


DEFECTS: dict[str, tuple[dict[str, Any], str]] = {
    "clock parts": ({"clock": {"wall": 103.1}}, "add up"),
    "negative part": ({"clock": {"checkpoint": -0.5, "wall": 102.0}}, "clock.checkpoint is -0.5"),
    "augmented more than all": (
        {"recipe": {"augmentation_fraction": 1.5}},
        "augmentation_fraction",
    ),
    "compile unmeasured": ({"recipe": {"compile": "default"}}, "clock.compile is zero"),
    "lost without restart": ({"lost_seconds": 3.0}, "restarts"),
    "spent": ({"budget": {"spent": 90.0}}, "budget.spent is 90"),
    "overshoot": ({"budget": {"limit": 99.0}}, "budget.overshoot"),
    "budget unspent": ({"budget": {"limit": 120.0}}, "100 of 120 seconds are spent"),
    "steps": ({"budget": {"kind": "steps", "limit": 900.0, "spent": 900.0}}, "steps is 1000"),
    "too many samples": ({"samples": 32001}, "do not fit"),
    "epochs": ({"epochs": 3.2}, "epochs"),
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
        {"reasons": {"groups": "x", "energy_joules": "x"}},
        "flops_per_sample is null",
    ),
    "group means": ({"groups": with_groups(0.5)}, "groups.total at step 1000"),
    "group shape": (
        {"groups": {"weights": [1.0], "total": [], "equivariance": []}},
        "not one row a trace point",
    ),
    "group weights": (
        {"groups": {"weights": [0.0], "total": [], "equivariance": []}},
        "must be positive",
    ),
}


@pytest.mark.parametrize(("overrides", "sentence"), DEFECTS.values(), ids=DEFECTS)
def test_defect_is_named(overrides: dict[str, Any], sentence: str) -> None:
    assert any(sentence in problem for problem in problems(sound(**overrides)))


def _break(change: Callable[[Any], None]) -> RunRecord:
    record = sound()
    change(record.trace[-1].test)
    record.final = record.trace[-1].test
    return record


TEST_DEFECTS: dict[str, tuple[Callable[[Any], None], str]] = {
    "parts": (lambda test: setattr(test, "twirled", test.twirled * 1.001), "is not twirled"),
    "share": (
        lambda test: setattr(test, "share", test.share * 1.001),
        "is not equivariance / total",
    ),
    "range": (lambda test: setattr(test, "share", 7.0), "share is 7, outside"),
    "negative total": (lambda test: setattr(test, "total", -1.0), "total is -1, outside"),
    "explained": (lambda test: setattr(test, "explained", 0.5), "imply baselines"),
    "explained above one": (
        lambda test: setattr(test, "explained", 1.5),
        "explained is 1.5, outside",
    ),
    "null": (lambda test: setattr(test, "floor", None), "trace.4.test.floor is null"),
}


@pytest.mark.parametrize(("change", "sentence"), TEST_DEFECTS.values(), ids=TEST_DEFECTS)
def test_defect_of_an_evaluation_is_named(change: Callable[[Any], None], sentence: str) -> None:
    assert any(sentence in problem for problem in problems(_break(change)))


def test_final_that_is_not_the_end_of_the_trace_is_named() -> None:
    record = sound()
    record.final = record.trace[0].test
    assert any("final is not the last point" in problem for problem in problems(record))


def test_trace_that_goes_back_is_named() -> None:
    record = sound()
    record.trace[1], record.trace[2] = record.trace[2], record.trace[1]
    assert any("goes back" in problem for problem in problems(record))


def test_trace_that_ends_early_or_late_is_named() -> None:
    early = sound(trace=make_trace(lambda step: step**-0.5, [10, 100], 0.1, 32))
    late = sound(trace=make_trace(lambda step: step**-0.5, [10, 2000], 0.1, 32))
    assert any("not at the end" in problem for problem in problems(early))
    assert any("after the run" in problem for problem in problems(late))


def test_null_of_a_part_is_covered_by_the_reason_of_the_whole() -> None:
    record = sound(throughput={"samples_per_second": None, "step_seconds": None})
    assert any("throughput.samples_per_second" in problem for problem in problems(record))
    record.reasons["throughput"] = "never timed"
    assert problems(record) == []


@pytest.mark.parametrize(
    "path", ["trace.1.test.floor", "trace.1.test", "trace.test.floor", "trace"]
)
def test_reason_serves_a_list_position_or_all_of_them(path: str) -> None:
    record = sound()
    record.trace[1].test.floor = None
    assert problems(record) == ["trace.1.test.floor is null and reasons has no entry for it"]
    record.reasons[path] = "measured at the end"
    assert problems(record) == []


def test_unusual_is_remarked_not_refused() -> None:
    record = sound(
        clock={"other": 10.0, "wall": 112.9},
        throughput={
            "samples_per_second": 120.0,
            "step_seconds": {"p10": 0.25, "p50": 0.25, "p90": 0.3},
        },
        model={"symmetry_verified": False},
        git={"dirty": True},
    )
    assert problems(record) == []
    assert len(remarks(record)) == 5


def test_other_rules_are_incomparable() -> None:
    assert "rules version 2" in str(incomparable(sound(rules_version=2)))
