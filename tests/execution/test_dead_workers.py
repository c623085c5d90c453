"""The record of a worker that died keeps every rule of a record, wherever its heart stopped."""

from __future__ import annotations

from typing import Any

import pytest
from factories import make_record
from hypothesis import given
from hypothesis import strategies as st

from equivbench.errors import UsageError
from equivbench.execution.dead import record_of_dead
from equivbench.execution.workers import hangs_after
from equivbench.records.consistency import CONSISTENCY
from equivbench.records.rules import broken_rules
from equivbench.records.schema import RunRecord
from equivbench.training.clock import PARTS
from equivbench.training.heartbeat import Beat, Heartbeat

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


@pytest.mark.parametrize("text", ["soon", "0", "-3", "nan"])
def test_a_patience_that_is_no_time_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQUIVBENCH_HANG_SECONDS", text)
    with pytest.raises(UsageError, match="EQUIVBENCH_HANG_SECONDS must be a positive number"):
        hangs_after()
