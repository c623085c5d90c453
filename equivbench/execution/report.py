"""From a trainer to its run record: status, verified symmetry, timing, environment and git
state."""

from __future__ import annotations

from equivbench.environment import environment, git_state
from equivbench.records.reading import shown
from equivbench.records.schema import RunRecord, Status
from equivbench.training.job import Job
from equivbench.training.outcome import throughput, to_record
from equivbench.training.trainer import Trainer

_REASON = 2000
"""Most characters of the reason of a failed run."""


def make_record(
    job: Job,
    trainer: Trainer,
    step_seconds: list[float],
    alternated_with: str | None,
    *,
    interrupted: bool = False,
    failed: str | None = None,
) -> RunRecord:
    """The record of ``trainer``'s run of ``job``.

    ``step_seconds`` are those of the alternated timing. A completed run is finalised (raw weights,
    inference, twirling); an interrupted, diverged or ``failed`` one (why) reports what is known.
    """
    status, reason = _status(trainer, interrupted, failed)
    outcome = trainer.finalise() if status == "completed" else trainer.outcome()
    timing = throughput(step_seconds, outcome.recipe.batch_size, alternated_with)
    return to_record(
        job,
        outcome,
        status=status,
        reason=reason,
        timing=timing,
        environment=environment(job.device, job.threads),
        git=git_state(),
    )


def _status(trainer: Trainer, interrupted: bool, failed: str | None) -> tuple[Status, str | None]:
    if failed is not None:
        return "failed", shown(failed, _REASON)  # someone's exception may hold anything
    if trainer.diverged is not None:
        return "diverged", trainer.diverged
    if interrupted:
        done = "before its steps were timed" if trainer.finished else "before its budget was spent"
        return "interrupted", f"stopped by the user {done}"
    return "completed", None
