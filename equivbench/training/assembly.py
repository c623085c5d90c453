"""From a job to a trainer: the registry's pair, arm, task, data and model put together."""

from __future__ import annotations

from equivbench.training.job import Job
from equivbench.training.trainer import Trainer


def build_trainer(job: Job) -> Trainer:
    """The trainer of ``job``; restored from its last checkpoint if ``job.resume`` and there is one.

    Raises ``UsageError`` for unknown names and ``FailedError`` for data or checkpoints that cannot be read.
    """
    raise NotImplementedError
