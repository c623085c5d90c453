"""The weights that a run kept from along its training (``run --snapshots``), found by what a user
calls the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from equivbench.errors import FailedError, UsageError
from equivbench.execution.checkpoints import checkpoint_of
from equivbench.training.checkpoint import SNAPSHOTS, Snapshots, read_checkpoint, step_of
from equivbench.training.job import Job


@dataclass(frozen=True)
class KeptRun:
    """A run with its snapshots: files for :func:`equivbench.training.assembly.load_model`, in order
    of their steps."""

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
    job = msgspec.convert(facts.job, Job)
    if not snapshots:
        raise FailedError(
            f"run {text} kept no snapshots; train it with `equivbench run {job.pair} --snapshots`"
        )
    return KeptRun(job, str(facts.identity["dataset"]), tuple(snapshots))
