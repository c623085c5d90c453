"""A trained run as an analysis finds it: its weights, the data it was trained on, and what the
record of the analysis says of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from equivbench.environment import git_state
from equivbench.records.schema import Environment
from equivbench.specs import Group
from equivbench.studies.record import AnalysisRequest
from equivbench.tasks.base import Split
from equivbench.tasks.splits import with_fraction
from equivbench.training.arm import ResolvedArm, resolve_arm
from equivbench.training.checkpoint import read_checkpoint
from equivbench.training.job import Job, read_job


@dataclass(frozen=True)
class TrainedRun:
    """The run that a checkpoint belongs to.

    Parameters
    ----------
    job
        What the run was.
    arm
        What the registry says of its arm.
    dataset_sha256
        Checksum of the data that it was trained on.
    step
        The step of the checkpoint.
    began
        When the analysis began, on the monotonic clock.
    """

    job: Job
    arm: ResolvedArm
    dataset_sha256: str
    step: int
    began: float

    @classmethod
    def of(cls, checkpoint: Path) -> TrainedRun:
        """The run of ``checkpoint``; raises ``FailedError`` for a file that cannot be read."""
        began = time.monotonic()
        facts = read_checkpoint(checkpoint).facts
        job = read_job(facts.job)
        return cls(job, resolve_arm(job), str(facts.identity["dataset"]), facts.step, began)

    @property
    def group(self) -> Group:
        """The group of the equivariance error in the run's own evaluations."""
        return self.arm.pair_preset.group or self.arm.task.group

    def split(self, name: str) -> Split:
        """The split ``name`` of the data that the run was trained on, cut as it was."""
        return with_fraction(self.arm.dataset().load(), self.job.fraction).split(name)

    def record_path(self, machine: Environment) -> str:
        """Where the run's record lies if ``machine`` trained it: a path that names no folder of
        this machine."""
        job = self.job
        return f"results/{machine.machine_key}/{job.pair}/{job.arm}/{job.run_id}.json"

    def described(self, request: AnalysisRequest, machine: Environment) -> dict[str, Any]:
        """The fields of :class:`equivbench.studies.record.RunAnalysis` that follow from the run,
        from ``request`` and from the machine that the analysis ran on."""
        job = self.job
        return {
            "created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "command": request.command(recorded=True),
            "run_id": job.run_id,
            "task": self.arm.task.name,
            "pair": self.arm.pair.name,
            "arm": job.arm,
            "model": self.arm.spec.name,
            "preset": job.request.preset,
            "seed": job.seed,
            "variant": {**self.arm.variant, **job.labels},
            "dataset_sha256": self.dataset_sha256,
            "weights": request.weights,
            "split": request.split,
            "group": self.group,
            "analysis_seed": request.seed,
            "seconds": time.monotonic() - self.began,
            "environment": machine,
            "git": git_state(),
        }
