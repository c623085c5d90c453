"""What a trained (or interrupted, or diverged) arm reports: the parts of its run record that training knows."""

from __future__ import annotations

import msgspec

from equivbench.records.schema import (
    RULES_VERSION,
    SCHEMA_VERSION,
    Budget,
    ClockRecord,
    DatasetRecord,
    Environment,
    Git,
    GroupErrors,
    Inference,
    Matching,
    Memory,
    ModelRecord,
    Number,
    RecipeRecord,
    RunRecord,
    Status,
    StepSeconds,
    Test,
    Throughput,
    TracePoint,
)
from equivbench.training.job import Job


class Outcome(msgspec.Struct, kw_only=True):
    """Fields of the record of the same names (JSON-safe through msgspec)."""

    task: str
    dataset: DatasetRecord
    matching: Matching
    model: ModelRecord
    recipe: RecipeRecord
    variant: dict[str, str]
    budget: Budget
    clock: ClockRecord
    restarts: int
    lost_seconds: float
    steps: int
    samples: int
    epochs: float
    inference: Inference
    memory: Memory
    flops_per_sample: Number
    energy_joules: Number
    trace: list[TracePoint]
    groups: GroupErrors | None
    final: Test | None
    final_raw: Test | None
    diverged: str | None
    reasons: dict[str, str]
    notes: list[str]


def throughput(step_seconds: list[float], batch_size: int, alternated_with: str | None) -> Throughput:
    """Throughput and its spread from the seconds of single steps, timed in alternation with ``alternated_with``."""
    if not step_seconds:
        return Throughput(samples_per_second=None, step_seconds=None, alternated_with=None)
    ordered = sorted(step_seconds)

    def quantile(q: float) -> float:
        position = q * (len(ordered) - 1)
        low = int(position)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (position - low) * (ordered[high] - ordered[low])

    spread = StepSeconds(p10=quantile(0.1), p50=quantile(0.5), p90=quantile(0.9))
    return Throughput(
        samples_per_second=batch_size * len(ordered) / sum(ordered), step_seconds=spread, alternated_with=alternated_with
    )


def to_record(
    job: Job, outcome: Outcome, *, status: Status, reason: str | None, timing: Throughput, environment: Environment, git: Git
) -> RunRecord:
    """The run record of ``job``; a null throughput gets its reason."""
    reasons = dict(outcome.reasons)
    if timing.samples_per_second is None:
        reasons["throughput.samples_per_second"] = "the run ended before its steps were timed"
    fields = {name: getattr(outcome, name) for name in outcome.__struct_fields__ if name not in ("diverged", "reasons", "notes")}
    return RunRecord(
        schema_version=SCHEMA_VERSION,
        rules_version=RULES_VERSION,
        run_id=job.run_id,
        created=job.created,
        status=status,
        reason=reason,
        preset=job.preset,
        command=job.command,
        pair=job.pair.partition("/")[2],
        arm=job.arm,
        seed=job.seed,
        throughput=timing,
        environment=environment,
        git=git,
        reasons=reasons,
        **fields,
    )
