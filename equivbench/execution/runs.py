"""Finds a run in the cache by what a user calls it: its checkpoint, and the snapshots it kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from equivbench.environment import cache_dir
from equivbench.errors import FailedError, UsageError
from equivbench.execution.state import STATE_FILE, RunState
from equivbench.records.store import read_record
from equivbench.training.checkpoint import CURRENT, SNAPSHOTS, Snapshots, read_checkpoint, step_of
from equivbench.training.job import Job, read_job


@dataclass(frozen=True)
class KeptRun:
    """A run with its snapshots (``run --snapshots``): files for
    :func:`equivbench.training.assembly.load_model`, in order of their steps."""

    job: Job
    dataset_sha256: str
    snapshots: tuple[Path, ...]

    @property
    def name(self) -> str:
        """Where its record lies below a results folder's machine: ``task/pair/arm/run-id``; no path
        of this machine."""
        return f"{self.job.pair}/{self.job.arm}/{self.job.run_id}"

    def at(self, step: int | None) -> Path:
        """The snapshot of ``step`` (None: the last); raises ``UsageError`` naming the steps that
        there are."""
        steps = {step_of(path): path for path in self.snapshots}
        if step is None:
            return self.snapshots[-1]
        if step not in steps:
            raise UsageError(
                f"{self.name} kept no snapshot of step {step}; it has {', '.join(map(str, steps))}"
            )
        return steps[step]


def checkpoint_of(text: str) -> Path:
    """The checkpoint that ``text`` names: a checkpoint file (``.safetensors``), a run's record
    (``.json``) or its id.

    Raises
    ------
    UsageError
        For the id of several arms.
    FailedError
        For a record that cannot be read and a run whose checkpoint is not here.
    """
    if text.endswith(".safetensors"):
        return Path(text)
    if text.endswith(".json"):
        record = read_record(text)
        arm = (f"{record.task}/{record.pair}", record.arm)
        return the_one(record.run_id, checkpoints_of(record.run_id, arm))
    return the_one(text, checkpoints_of(text))


def checkpoints_of(run_id: str, arm: tuple[str, str] | None = None) -> dict[str, Path]:
    """Checkpoints in the cache of runs with this id, by what tells them apart; of one (pair, arm)
    if given."""
    found = {}
    for path in sorted((cache_dir() / "runs").glob(f"*/{STATE_FILE}")):
        try:
            state = msgspec.json.decode(path.read_bytes(), type=RunState)
        except (OSError, msgspec.DecodeError):
            continue
        records = [Path(record) for record in state.records.values()]
        if run_id != state.run_id and run_id not in [record.stem for record in records]:
            continue
        checkpoint = path.parent / CURRENT
        if not checkpoint.exists():
            continue
        job = read_checkpoint(checkpoint).facts.job
        if arm is None or (job["pair"], job["arm"]) == arm:
            found[str(records[-1]) if records else str(checkpoint)] = checkpoint
    return found


def the_one(run_id: str, found: Mapping[str, Path]) -> Path:
    """The only checkpoint in ``found``.

    Raises
    ------
    FailedError
        Where there is none.
    UsageError
        Where there are several.
    """
    if not found:
        raise FailedError(
            f"run {run_id} has no checkpoint in {cache_dir() / 'runs'}; "
            "checkpoints stay in the cache of the machine"
        )
    if len(found) > 1:
        raise UsageError(
            f"run id {run_id} is that of several arms; "
            f"name one by its record or checkpoint: {', '.join(found)}"
        )
    return next(iter(found.values()))


def find_snapshots(text: str) -> KeptRun:
    """The run that ``text`` names: its record (``.json``), its id, or a checkpoint or snapshot of
    it (``.safetensors``).

    Raises
    ------
    UsageError
        For the id of several arms.
    FailedError
        For a run that is not in the cache, cannot be read, or kept no snapshots.
    """
    path = checkpoint_of(text)
    folder = path.parent if path.parent.name == SNAPSHOTS else path.parent / SNAPSHOTS
    snapshots = Snapshots(folder).paths()
    facts = read_checkpoint(snapshots[-1] if snapshots else path).facts
    job = read_job(facts.job)
    if not snapshots:
        raise FailedError(
            f"run {text} kept no snapshots; train it with `equivbench run {job.pair} --snapshots`"
        )
    return KeptRun(job, str(facts.identity["dataset"]), tuple(snapshots))
