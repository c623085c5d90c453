"""What every analysis of a run's weights begins with and keeps: the run's own data, and which run
on which machine it was."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from equivbench.environment import git_state
from equivbench.records.schema import Environment
from equivbench.registry import DATASETS, resolve
from equivbench.tasks.base import DatasetSource, Split
from equivbench.tasks.fraction import with_fraction
from equivbench.training.assembly import Plan
from equivbench.training.job import Job


def split_of(chosen: Plan, job: Job, name: str) -> Split:
    """The split ``name`` of the data that ``job`` trained on, cut as it was."""
    source: DatasetSource = resolve(DATASETS.get(chosen.pair_preset.dataset).factory)()
    return with_fraction(source.load(), job.fraction).split(name)


def analysed_run(chosen: Plan, job: Job, machine: Environment) -> dict[str, Any]:
    """The fields of :class:`equivbench.studies.record.RunAnalysis` that say which run was analysed,
    where, and by what code."""
    return {
        "created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "run_id": job.run_id,
        "task": chosen.task.name,
        "pair": chosen.pair.name,
        "arm": job.arm,
        "model": chosen.spec.name,
        "preset": job.preset,
        "seed": job.seed,
        "variant": {**chosen.variant, **job.labels},
        "environment": machine,
        "git": git_state(),
    }
