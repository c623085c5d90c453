"""What every analysis of a run's weights begins with and keeps: the run's own data, and which run
on which machine it was."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from equivbench.environment import git_state
from equivbench.records.schema import Environment
from equivbench.tasks.base import Split
from equivbench.tasks.splits import with_fraction
from equivbench.training.arm import ResolvedArm
from equivbench.training.job import Job


def split_of(declared: ResolvedArm, job: Job, name: str) -> Split:
    """The split ``name`` of the data that ``job`` trained on, cut as it was."""
    return with_fraction(declared.dataset().load(), job.fraction).split(name)


def analysed_run(declared: ResolvedArm, job: Job, machine: Environment) -> dict[str, Any]:
    """The fields of :class:`equivbench.studies.record.RunAnalysis` that say which run was analysed,
    where, and by what code."""
    return {
        "created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "run_id": job.run_id,
        "task": declared.task.name,
        "pair": declared.pair.name,
        "arm": job.arm,
        "model": declared.spec.name,
        "preset": job.request.preset,
        "seed": job.seed,
        "variant": {**declared.variant, **job.labels},
        "environment": machine,
        "git": git_state(),
    }
