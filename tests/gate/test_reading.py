"""What is read of files and folders, and that nothing unreadable is passed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from factories import make_record, make_rungs, make_test
from toy_samples import environment, gate_samples, kernel_samples

from equivbench.gate.compare import compare
from equivbench.gate.reading import read_side
from equivbench.gate.samples import Samples, Side
from equivbench.records.files import write_lines
from equivbench.records.schema import Git, RunRecord
from equivbench.records.store import write_record


def run(total: float = 0.2, seed: int = 0, **changes: Any) -> RunRecord:
    """A record of a step budget whose last evaluation has the given total; consistent with
    itself."""
    (rung,) = make_rungs(lambda step: total, [1000], 0.1, 32)
    settings = {
        "preset": "dev",
        "seed": seed,
        "run_id": f"dev-seed{seed}",
        "budget": {"kind": "steps", "limit": 1000.0, "spent": 1000.0, "overshoot": 0.0},
        "trace": [],
        "rungs": [{**rung, "budget": changes.get("budget", {"limit": 1000.0})["limit"]}],
        "final_raw": make_test(total),
        "final_ema": make_test(total),
    }
    return make_record(**{**settings, **changes})


def written(folder: Path, *records: RunRecord) -> Path:
    for record in records:
        write_record(record, folder)
    return folder


def totals(side: Side) -> list[Samples]:
    return [each for each in side.measurements if each.metric.name == "total"]


def reasons(side: Side) -> str:
    return " ".join(each.reason for each in side.unreadable)


def verdicts(baseline: Path, candidate: Path, *metrics: str) -> dict[str, str]:
    sides = read_side(baseline, metrics), read_side(candidate, metrics)
    found = compare(*sides, thresholds={})
    return {each.metric or each.benchmark: each.verdict for each in found}


def test_records_of_a_folder_become_one_value_a_seed(tmp_path: Path) -> None:
    (total,) = totals(
        read_side(written(tmp_path, *(run(0.1 * (seed + 1), seed) for seed in range(3))))
    )
    assert total.values == {0: pytest.approx(0.1), 1: pytest.approx(0.2), 2: pytest.approx(0.3)}
    assert total.deterministic
    assert total.name == "toy/pair equivariant"


def test_the_first_record_of_a_seed_counts(tmp_path: Path) -> None:
    first = run(0.1, run_id="dev-seed0-a", created="2026-01-01T00:00:00Z")
    again = run(0.3, run_id="dev-seed0-b", created="2026-01-02T00:00:00Z")
    (total,) = totals(read_side(written(tmp_path, again, first)))
    assert total.values == {0: pytest.approx(0.1)}


def test_seconds_are_no_deterministic_budget(tmp_path: Path) -> None:
    (total,) = totals(read_side(written(tmp_path, make_record())))
    assert not total.deterministic


def test_timings_of_runs_are_gated_only_when_named(tmp_path: Path) -> None:
    folder = written(tmp_path, run())
    assert {each.metric.name for each in read_side(folder).measurements} == {"total", "share"}
    assert "step_seconds" in {
        each.metric.name for each in read_side(folder, ["step_seconds"]).measurements
    }


def test_a_worse_loss_is_a_regression(tmp_path: Path) -> None:
    before = written(tmp_path / "a", *(run(0.2, seed) for seed in range(3)))
    after = written(tmp_path / "b", *(run(0.24 + 0.001 * seed, seed) for seed in range(3)))
    assert verdicts(before, after)["total"] == "regression"
    assert verdicts(after, before)["total"] == "improvement"
    assert set(verdicts(before, before).values()) == {"unchanged"}


@pytest.mark.parametrize(
    "change",
    [
        {"environment": {"machine_key": "other-2t"}},
        {"preset": "small", "run_id": "small-seed0"},
        {"budget": {"limit": 500.0, "kind": "steps", "spent": 1000.0, "overshoot": 500.0}},
        {"dataset": {"sha256": "1" * 64}},
        {"rules_version": 3},
    ],
    ids=["machine", "preset", "budget", "data", "rules"],
)
def test_records_of_another_setting_are_incomparable(
    change: dict[str, Any], tmp_path: Path
) -> None:
    before, after = written(tmp_path / "a", run()), written(tmp_path / "b", run(**change))
    assert set(verdicts(before, after).values()) == {"incomparable"}


def test_a_diverged_run_has_failed_whatever_the_baseline(tmp_path: Path) -> None:
    lost = run(status="diverged", reason="loss is NaN", rungs=[], final_raw=None)
    before, after = written(tmp_path / "a", run()), written(tmp_path / "b", lost)
    assert set(verdicts(before, after).values()) == {"failed"}
    assert set(verdicts(after, before).values()) == {"failed"}


def test_an_implausible_record_has_failed(tmp_path: Path) -> None:
    broken = run(clock={"wall": 1.0})
    before, after = written(tmp_path / "a", run()), written(tmp_path / "b", broken)
    assert set(verdicts(before, after).values()) == {"failed"}


def test_a_dirty_record_is_dirty(tmp_path: Path) -> None:
    before, after = (
        written(tmp_path / "a", run()),
        written(tmp_path / "b", run(git={"dirty": True})),
    )
    assert set(verdicts(before, after).values()) == {"dirty"}


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
@pytest.mark.parametrize("content", [b"", b"\n", b"{", b'{"a": 1}', b"\xff\xfe", b"[1]", b"null"])
def test_what_is_no_measurement_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    for path in (tmp_path / name, tmp_path):
        side = read_side(path)
        assert not side.measurements
        assert name in reasons(side)


def test_tuning_logs_beside_records_are_no_measurements(tmp_path: Path) -> None:
    written(tmp_path, run())
    alone = read_side(tmp_path)
    (tmp_path / "log.jsonl").write_text('{"learning_rate":0.1}\n')
    # Named by itself such a file is a mistake.
    assert "log.jsonl" in reasons(read_side(tmp_path / "log.jsonl"))
    assert read_side(tmp_path) == alone


def test_nothing_there_is_said(tmp_path: Path) -> None:
    assert "does not exist" in reasons(read_side(tmp_path / "nowhere"))
    assert "holds no records" in reasons(read_side(tmp_path))


def test_a_broken_file_does_not_hide_the_others(tmp_path: Path) -> None:
    written(tmp_path, run())
    (tmp_path / "cut.json").write_text("{")
    side = read_side(tmp_path)
    assert totals(side)
    assert "cut.json" in reasons(side)


def test_an_analysis_that_cannot_be_right_is_named(tmp_path: Path) -> None:
    written(tmp_path, run())
    kept = write_lines([kernel_samples([1.0] * 4)], tmp_path / "machine" / "kernels.jsonl")
    assert not read_side(tmp_path).unreadable
    for name in ("gradients.jsonl", "landscapes.jsonl"):
        kept.with_name(name).write_text('{"kind":"gradients"}\n')
        assert f"{name}, line 1" in reasons(read_side(tmp_path))
        kept.with_name(name).unlink()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"errors": {"output": 0.5}}, "such a kernel is not timed"),
        ({"errors": {}}, "only after it was checked"),
        ({"operations": 1e20}, "operations a second"),
        ({"fraction_of_floor": 3.0}, "fraction_of_floor"),
        ({"created": "3026-01-01T00:00:00Z"}, "3026"),
    ],
    ids=["wrong", "unchecked", "beyond the roofline", "made-up floor", "of the future"],
)
def test_a_kernel_that_cannot_be_is_no_improvement(
    change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    before = write_lines([kernel_samples([1.0] * 8)], tmp_path / "a.jsonl")
    after = write_lines([kernel_samples([0.5] * 8, **change)], tmp_path / "b.jsonl")
    (found,) = compare(read_side(before), read_side(after), thresholds={})
    assert found.verdict == "failed"
    assert says in found.reason


def test_a_copy_is_no_further_evidence(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_lines([kernel_samples([1.0, 1.1, 1.2, 1.3])], tmp_path / f"{name}.jsonl")
    side = read_side(tmp_path)
    assert "a copy is no further evidence" in reasons(side)
    assert [len(each.values) for each in side.measurements] == [4]


def test_kernel_samples_of_several_processes_are_pooled(tmp_path: Path) -> None:
    for name, level in (("a", 1.0), ("b", 2.0)):
        write_lines([kernel_samples([level] * 4)], tmp_path / f"{name}.jsonl")
    (found,) = read_side(tmp_path).measurements
    assert sorted(found.values.values()) == [1.0] * 4 + [2.0] * 4
    assert found.name == "convolution-c64-l2 forward fused"


def test_a_kernel_that_slows_down_is_found(tmp_path: Path) -> None:
    before = write_lines([kernel_samples([1.0, 1.01, 1.0, 1.02, 1.0])], tmp_path / "a.jsonl")
    after = write_lines([kernel_samples([1.2, 1.21, 1.2, 1.22, 1.2])], tmp_path / "b.jsonl")
    assert verdicts(before, after) == {"seconds": "regression"}
    assert verdicts(before, before) == {"seconds": "unchanged"}


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float64", "errors": {"output": 1e-13}},
        {"method": "naive"},
        {"environment": environment("other")},
        {"operations": 2e7},
    ],
    ids=str,
)
def test_kernel_samples_of_another_kind_are_incomparable(
    change: dict[str, Any], tmp_path: Path
) -> None:
    before = write_lines([kernel_samples([1.0] * 4)], tmp_path / "a.jsonl")
    after = write_lines([kernel_samples([1.0] * 4, **change)], tmp_path / "b.jsonl")
    assert verdicts(before, after) == {"seconds": "incomparable"}


def test_a_throttled_gpu_decides_nothing(tmp_path: Path) -> None:
    hot = {"device_state": {"throttled_rounds": 3.0, "throttled_by": "power"}}
    before = write_lines([kernel_samples([1.0] * 4)], tmp_path / "a.jsonl")
    after = write_lines([kernel_samples([1.5] * 4, **hot)], tmp_path / "b.jsonl")
    assert verdicts(before, after) == {"seconds": "inconclusive"}
    assert verdicts(after, after) == {"seconds": "inconclusive"}


def test_samples_of_one_session_stay_pairs_on_disk(tmp_path: Path) -> None:
    drift = [[1.0, 5.0, 1.0], [2.0, 1.0, 2.0], [4.0, 4.0, 9.0], [8.0, 8.0, 8.0]]
    before = write_lines([gate_samples([], rounds=drift)], tmp_path / "a.jsonl")
    slower = [[1.1 * value for value in block] for block in drift]
    after = write_lines([gate_samples([], rounds=slower)], tmp_path / "b.jsonl")
    sides = read_side(before), read_side(after)
    assert [each.session for side in sides for each in side.measurements] == ["one", "one"]
    (found,) = compare(*sides, thresholds={})
    assert found.low == pytest.approx(0.1, rel=1e-6)


@pytest.mark.parametrize(
    "change",
    [{"problem": "RuntimeError: no"}, {"git": Git(commit=None, dirty=True)}],
    ids=["problem", "dirty"],
)
def test_what_went_wrong_on_one_side_reaches_the_verdict(
    change: dict[str, Any], tmp_path: Path
) -> None:
    before = write_lines([gate_samples([1.0] * 8)], tmp_path / "a.jsonl")
    after = write_lines([gate_samples([1.0] * 8, **change)], tmp_path / "b.jsonl")
    assert verdicts(before, after)["seconds"] in ("failed", "dirty")


def test_nan_on_disk_is_refused(tmp_path: Path) -> None:
    line = msgspec.json.encode(kernel_samples([1.0] * 4)).replace(b"[1.0,1.0,", b"[NaN,1.0,")
    (tmp_path / "a.jsonl").write_bytes(line)
    assert "line 1" in reasons(read_side(tmp_path))


def test_tuning_logs_beside_records_are_passed_over_and_alone_are_not(tmp_path: Path) -> None:
    written(tmp_path, run())
    log = tmp_path / "tuning" / "pair.jsonl"
    log.parent.mkdir()
    log.write_text('{"pair":"toy/pair","learning_rate":0.1}\n')
    assert not read_side(tmp_path).unreadable
    assert read_side(log).unreadable
    assert read_side(log.parent).unreadable
