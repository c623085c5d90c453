"""A trained run as an analysis finds it: its weights, the data it was trained on, and what the
record of the analysis says of it."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import nn

from equivbench.environment import environment, git_state
from equivbench.execution.plan import resolve_device, with_threads
from equivbench.specs import Group
from equivbench.studies.fixed_loss import FixedLoss
from equivbench.studies.record import AnalysisRequest
from equivbench.tasks.base import Split
from equivbench.tasks.splits import with_fraction
from equivbench.training.arm import ResolvedArm, resolve_arm
from equivbench.training.checkpoint import read_checkpoint
from equivbench.training.job import Job, read_job


@dataclass(frozen=True)
class TrainedRun:
    """The run that a checkpoint belongs to, as ``request`` analyses it on ``device``."""

    request: AnalysisRequest
    job: Job
    arm: ResolvedArm
    dataset_sha256: str
    """Checksum of the data that it was trained on."""
    step: int
    """Of the checkpoint."""
    device: str
    began: float
    """When the analysis began, on the monotonic clock."""

    @property
    def group(self) -> Group:
        """The group of the equivariance error in the run's own evaluations."""
        return self.arm.pair_preset.group or self.arm.task.group

    @functools.cached_property
    def split(self) -> Split:
        """The samples that are asked for, of the data that the run was trained on, cut as it
        was."""
        data = with_fraction(self.arm.dataset().load(), self.job.fraction)
        return data.split(self.request.split)

    def losses(self, model: nn.Module) -> Callable[..., FixedLoss]:
        """Makes a :class:`FixedLoss` of these samples for models like ``model``."""
        return functools.partial(
            FixedLoss,
            self.arm.task,
            self.split,
            requires=self.arm.requires(model),
            group=self.group,
            device=self.device,
        )

    def described(self, asked: Callable[[str], AnalysisRequest]) -> dict[str, Any]:
        """The fields of :class:`equivbench.studies.record.RunAnalysis` that follow from the run,
        the request and the machine.

        ``asked`` makes the request that is kept from the path at which the run's record lies if
        this machine trained it: it names no folder of this machine.
        """
        job, request = self.job, self.request
        machine = environment(self.device, job.threads)
        record = f"results/{machine.machine_key}/{job.pair}/{job.arm}/{job.run_id}.json"
        return {
            "created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "command": asked(record).command(recorded=True),
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


@contextlib.contextmanager
def trained_run(checkpoint: Path, request: AnalysisRequest) -> Iterator[TrainedRun]:
    """The run of ``checkpoint``; inside the block torch has the threads of the run, so that the
    analysis lies beside its record. Raises ``FailedError`` for a file that cannot be read."""
    began = time.monotonic()
    facts = read_checkpoint(checkpoint).facts
    job = read_job(facts.job)
    sha256, device = str(facts.identity["dataset"]), resolve_device(request.device)
    with with_threads(job.threads):
        yield TrainedRun(request, job, resolve_arm(job), sha256, facts.step, device, began)
