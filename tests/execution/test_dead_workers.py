"""The record of a worker that died keeps every rule of a record, wherever its heart stopped."""

from __future__ import annotations

import io
import warnings
from typing import Any

import msgspec
import pytest
from factories import make_record
from good_results import good_files
from hypothesis import given
from hypothesis import strategies as st

from equivbench.errors import EquivbenchWarning, UsageError
from equivbench.execution.dead import record_of_dead
from equivbench.execution.messages import Note, receive_answer
from equivbench.execution.plan import make_plan
from equivbench.execution.unbuilt import unbuilt_record
from equivbench.execution.worker import warnings_told
from equivbench.execution.workers import WorkerProcess, hangs_after
from equivbench.gap.pairing import Setting
from equivbench.records.consistency import CONSISTENCY
from equivbench.records.plausibility import problems
from equivbench.records.rules import broken_rules
from equivbench.records.schema import RunRecord
from equivbench.registry import PluginWarning
from equivbench.report.board import setup_digest
from equivbench.request import RunRequest
from equivbench.training.clock import PARTS
from equivbench.training.heartbeat import Beat, Heartbeat
from equivbench.training.job import Job

SECONDS = st.floats(0.0, 1e6)


def draft(**overrides: Any) -> RunRecord:
    """A run that had come to its thirtieth step when it last spoke."""
    whole = make_record()
    early = {
        "status": "failed",
        "reason": "its process died",
        "steps": 30,
        "samples": 30 * 32,
        "epochs": 30 * 32 / whole.dataset.sizes["train"],
        "trace": [],
        "rungs": [],
        "final_raw": None,
        "final_ema": None,
        "budget": {"spent": 3.0, "overshoot": 0.0},
        "reasons": {
            **whole.reasons,
            **dict.fromkeys(("final", "final_on_part", "final_raw", "final_ema"), "it ended"),
            "machine_share.p90_over_p10": "fewer than two steps were timed",
        },
    }
    return make_record(**{**early, **overrides})


@given(
    step=st.integers(30, 10**6),
    restarts=st.integers(1, 5),
    lost=SECONDS,
    parts=st.lists(SECONDS, min_size=len(PARTS), max_size=len(PARTS)),
    kind=st.sampled_from(["seconds", "steps", "samples"]),
)
def test_it_is_brought_up_to_the_heartbeat_and_keeps_the_rules(
    step: int, restarts: int, lost: float, parts: list[float], kind: str
) -> None:
    beat = Beat(step, restarts, lost, dict(zip(PARTS, parts, strict=True)))
    found = record_of_dead(draft(budget={"kind": kind, "limit": 10.0}), beat, "it was killed")
    assert (found.status, found.reason) == ("failed", "it was killed")
    assert (found.steps, found.restarts, found.lost_seconds) == (step, restarts, lost)
    assert list(broken_rules(found, CONSISTENCY)) == []
    assert not any(path.startswith("machine_share.") for path in found.reasons)


def test_a_beat_from_before_the_draft_or_none_leaves_the_draft() -> None:
    clock = dict.fromkeys(PARTS, 1.0)
    for beat in (None, Beat(29, 0, 0.0, clock)):
        found = record_of_dead(draft(), beat, "it was killed")
        assert (found.steps, found.machine_share, found.energy_joules) == (30, None, None)


def test_a_beat_is_read_by_whoever_asks_after_the_dead(tmp_path: Any) -> None:
    beat = Beat(7, 1, 0.5, {part: float(number) for number, part in enumerate(PARTS)})
    Heartbeat(tmp_path / "heartbeat", b"this run").write(beat)
    assert Heartbeat(tmp_path / "heartbeat").read() == beat
    assert Heartbeat(tmp_path / "heartbeat", b"another").read() is None


SHIPPED = [
    msgspec.json.decode(file.read_bytes(), type=RunRecord)
    for file in good_files()
    if file.parts[-2] == "equivariant"
]


def job_of(record: RunRecord, **change: Any) -> Job:
    """The first job of a plan like that of ``record``."""
    pair = f"{record.task}/{record.pair}"
    request = RunRequest.of(pairs=pair, preset=record.preset, arms=(record.arm,), device="cpu")
    job = make_plan(request).contests[0].jobs[0]
    return msgspec.structs.replace(job, threads=record.environment.threads, **change)


@pytest.mark.parametrize("record", SHIPPED, ids=lambda record: record.pair)
def test_one_that_never_built_its_arm_has_a_record_that_keeps_every_rule(record: RunRecord) -> None:
    job = job_of(record)
    for known in ([], [record]):
        found = unbuilt_record(job, "the worker was killed by SIGKILL\x1b[31m", known)
        assert found is not None
        assert problems(found) == []
        assert (found.status, found.steps, found.run_id) == ("failed", 0, job.run_id)
        assert "\x1b" not in str(found.reason)


@pytest.mark.parametrize("record", SHIPPED, ids=lambda record: record.pair)
def test_it_stands_in_one_row_with_the_other_seeds_of_its_arm(record: RunRecord) -> None:
    found = unbuilt_record(job_of(record), "it was killed", SHIPPED)
    assert found is not None
    # Its machine is this one, whatever kind the others ran on.
    found.environment = record.environment
    assert setup_digest(found) == setup_digest(record)
    assert Setting.of(found) == Setting.of(record)


def test_what_is_not_known_of_it_is_null_with_a_reason() -> None:
    job = job_of(SHIPPED[1], config={"layers": 1})
    found = unbuilt_record(job, "it was killed", [])
    assert found is not None
    assert (found.model.parameters, found.matching.measured) == (None, {})
    assert "model.parameters" in found.reasons
    # What the declaration has of its own size is missing: in earnest a sweep's label says why.
    assert all("model.config" in each or "matching.measured" in each for each in problems(found))


def test_only_a_run_that_was_never_built_may_lack_its_parameters() -> None:
    record = make_record(model={"parameters": None}, reasons={"model.parameters": "why not"})
    assert any("parameters is null in a completed run" in each for each in problems(record))


def test_a_failure_without_a_record_has_the_last_draft() -> None:
    worker = WorkerProcess.__new__(WorkerProcess)
    worker.job, worker._draft = job_of(SHIPPED[1], state_dir="nowhere"), draft()
    found = worker._last_known("it failed")
    assert found is not None
    assert (found.steps, found.reason) == (30, "it failed")


def test_what_a_worker_warns_of_reaches_the_user() -> None:
    pipe = io.BytesIO()
    with warnings_told(pipe):
        for _ in range(2):
            warnings.warn("the source changed", EquivbenchWarning, stacklevel=1)
        warnings.warn("a plug-in", PluginWarning, stacklevel=1)
        warnings.simplefilter("always", UserWarning)
        warnings.warn("of a library", UserWarning, stacklevel=1)
    pipe.seek(0)
    assert [receive_answer(pipe) for _ in range(3)] == [
        Note("the source changed"),
        Note("the source changed"),
        None,
    ]


@pytest.mark.parametrize("text", ["soon", "0", "-3", "nan"])
def test_a_patience_that_is_no_time_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQUIVBENCH_HANG_SECONDS", text)
    with pytest.raises(UsageError, match="EQUIVBENCH_HANG_SECONDS must be a positive number"):
        hangs_after()
