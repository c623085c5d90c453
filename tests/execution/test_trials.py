"""The tuning log: written as it goes, a cut last line is dropped, what is no such log is
refused."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from equivbench.errors import FailedError
from equivbench.execution.trials import Choice, Trial, TrialLog

TRIAL = Trial(
    pair="toy/plain",
    arm="equivariant",
    preset="dev",
    learning_rate=1e-3,
    batch_size=8,
    width=1.0,
    seed=1000,
    budget="50steps",
    device="cpu",
    threads=1,
    status="completed",
    reason=None,
    total=1.5,
    explained=0.5,
    share=0.0,
    steps=50,
    seconds=0.1,
    config={"width": 3},
    recipe={"ema": 0.999},
)
CHOICE = Choice(
    arm="equivariant",
    learning_rate=1e-3,
    batch_size=8,
    width=1.0,
    config={},
    loss=1.5,
    seeds=[1000, 1001],
    points=7,
    width_for="neither arm",
    given_up=None,
)


def replace(**changes):
    return msgspec.structs.replace(TRIAL, **changes)


def test_trials_are_on_disk_as_soon_as_they_are_added(tmp_path):
    path = tmp_path / "a" / "log.jsonl"
    log = TrialLog(path)
    for rate in (1e-3, 2e-3):
        log.add(replace(learning_rate=rate))
        assert TrialLog(path).trials == log.trials
    assert log.sha256() == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("cut", [1, 5, 50])
def test_a_last_line_cut_short_is_dropped_and_the_log_goes_on(tmp_path, cut):
    path = tmp_path / "log.jsonl"
    log = TrialLog(path)
    log.add(TRIAL)
    log.add(replace(learning_rate=2e-3))
    path.write_bytes(path.read_bytes()[:-cut])
    log = TrialLog(path)
    assert log.trials == [TRIAL]
    log.add(replace(learning_rate=4e-3))
    assert [trial.learning_rate for trial in TrialLog(path).trials] == [1e-3, 4e-3]


def test_a_choice_that_stands_is_not_written_again(tmp_path):
    log = TrialLog(tmp_path / "log.jsonl")
    log.add(TRIAL)
    log.add(CHOICE)
    digest = log.sha256()
    log = TrialLog(log.path)
    log.add(CHOICE)
    assert log.sha256() == digest
    log.add(msgspec.structs.replace(CHOICE, loss=1.4))
    assert log.sha256() != digest
    assert TrialLog(log.path).trials == [TRIAL]


OLD = msgspec.to_builtins(TRIAL)
OLD = {name: OLD[name] for name in OLD if name not in ("kind", "width")}


@pytest.mark.parametrize("line", [b'{"not": "a trial"}', b"[", msgspec.json.encode(OLD)])
def test_something_else_and_a_log_without_widths_are_refused(tmp_path, line):
    path = tmp_path / "log.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.raises(FailedError, match="not a tuning log of this version"):
        TrialLog(path)
