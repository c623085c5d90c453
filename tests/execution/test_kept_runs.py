"""Runs asked to keep snapshots, and the snapshots found again by whatever names the run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest
import torch

from equivbench.errors import FailedError, UsageError
from equivbench.execution.loading import find_snapshots
from equivbench.execution.plan import make_plan, this_machine
from equivbench.execution.state import on_machines, open_state
from equivbench.request import RunRequest
from equivbench.training.checkpoint import (
    CURRENT,
    SNAPSHOTS,
    Facts,
    step_of,
    write_checkpoint,
    write_snapshot,
)
from equivbench.training.job import Job

REQUEST = RunRequest(
    pairs=("forcefield/vector",), preset="dev", device="cpu", threads=1, snapshots=True
)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))


def jobs_of(request: RunRequest) -> list[Job]:
    return on_machines(make_plan(request), [this_machine(request)]).jobs


def left_behind(job: Job, *steps: int) -> Path:
    """What a run of ``job`` leaves in the cache: its state, a checkpoint, snapshots at ``steps``;
    returns the folder."""
    open_state(job)
    folder = Path(job.state_dir)
    tensors = {
        "model.w": torch.zeros(2),
        "ema.w": torch.ones(2),
        "optimizer.w.exp_avg": torch.zeros(2),
    }
    facts = Facts(identity={"dataset": "a" * 64}, job=msgspec.to_builtins(job), budget=job.budget)
    for step in steps:
        write_snapshot(folder, tensors, msgspec.structs.replace(facts, step=step))
    write_checkpoint(folder, tensors, msgspec.structs.replace(facts, step=max(steps, default=0)))
    return folder


def test_a_request_for_snapshots_reaches_every_job_and_is_another_run_than_without() -> None:
    kept, plain = jobs_of(REQUEST), jobs_of(dataclasses.replace(REQUEST, snapshots=False))
    assert all(job.request.snapshots for job in kept)
    assert not any(job.request.snapshots for job in plain)
    assert not {job.state_dir for job in kept} & {job.state_dir for job in plain}
    assert "--snapshots" in REQUEST.command()
    assert "--snapshots" in REQUEST.command(recorded=True)
    assert "--snapshots" not in RunRequest().command()


def test_id_checkpoint_and_any_snapshot_name_the_run() -> None:
    augmented = jobs_of(REQUEST)[1]
    folder = left_behind(augmented, 30, 3, 1000000001)
    for text in (
        augmented.run_id,
        str(folder / CURRENT),
        str(folder / SNAPSHOTS / "step-000000003.safetensors"),
    ):
        found = find_snapshots(text)
        assert [step_of(path) for path in found.snapshots] == [3, 30, 1000000001]
        assert found.job == augmented
        assert found.dataset_sha256 == "a" * 64
        assert found.name == f"forcefield/vector/augmented/{augmented.run_id}"


def test_a_step_is_found_or_refused_with_those_that_there_are() -> None:
    job = jobs_of(REQUEST)[0]
    left_behind(job, 3, 30)
    found = find_snapshots(job.run_id)
    assert step_of(found.at(3)) == 3
    assert found.at(None) == found.at(30)
    with pytest.raises(UsageError, match="kept no snapshot of step 7; it has 3, 30"):
        found.at(7)


def test_the_id_of_both_arms_is_refused_and_so_is_a_run_that_kept_none() -> None:
    equivariant, augmented = jobs_of(REQUEST)
    folder = left_behind(equivariant)
    with pytest.raises(
        FailedError,
        match="kept no snapshots; train it with `equivbench run forcefield/vector --snapshots`",
    ):
        find_snapshots(str(folder / CURRENT))
    left_behind(augmented, 3)
    with pytest.raises(UsageError, match="that of several arms"):
        find_snapshots(augmented.run_id)
    with pytest.raises(FailedError, match="run unheard-of has no checkpoint"):
        find_snapshots("unheard-of")
