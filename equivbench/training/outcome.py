"""What a trained (or interrupted, or diverged) arm reports: the parts of its run record that
training knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
from equivbench.specs import Symmetry
from equivbench.training.job import Job
from equivbench.training.probes import peak_memory

if TYPE_CHECKING:
    from equivbench.training.trainer import Trainer


@dataclass(frozen=True)
class Description:
    """What an arm is, as its record says it."""

    task: str
    dataset: DatasetRecord
    matching: Matching
    model: str
    symmetry: Symmetry
    config: Mapping[str, Any]
    wrapper: str | None
    kernels: str
    variant: Mapping[str, str]
    job: Mapping[str, Any]


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
    baselines: dict[str, float]
    diverged: str | None
    reasons: dict[str, str]
    """Why a value is null, by its path in the record."""
    notes: list[str]


def outcome_of(
    trainer: Trainer,
    inference: Inference,
    final_raw: Test | None,
    flops: float | None,
    baselines: dict[str, float],
) -> Outcome:
    """Everything the run's record needs, from where the trainer stands now."""
    facts, about, arm, clock = (
        trainer.facts,
        trainer.description,
        trainer.arm,
        trainer.clock.seconds(),
    )
    return Outcome(
        task=about.task,
        dataset=about.dataset,
        matching=about.matching,
        model=ModelRecord(
            name=about.model,
            symmetry=about.symmetry,
            symmetry_verified=facts.verified,
            parameters=sum(parameter.numel() for parameter in arm.model.parameters()),
            kernels=about.kernels,
            config=dict(about.config),
            wrapper=about.wrapper,
        ),
        recipe=RecipeRecord(
            **{
                name: getattr(arm.recipe, name)
                for name in RecipeRecord.__struct_fields__
                if name != "compile"
            },
            compile=trainer.preparation.backend,
        ),
        variant=dict(about.variant),
        budget=Budget(
            kind=trainer.budget.kind,
            limit=trainer.budget.limit,
            spent=trainer.spent,
            overshoot=max(0.0, trainer.spent - trainer.budget.limit),
            extends=None
            if facts.extends is None
            else type(trainer.budget).parse(facts.extends).limit,
        ),
        clock=ClockRecord(**clock, wall=sum(clock.values())),
        restarts=facts.restarts,
        lost_seconds=facts.lost_seconds,
        steps=facts.step,
        samples=facts.samples,
        epochs=facts.samples / len(arm.split),
        inference=inference,
        memory=peak_memory(arm.device),
        flops_per_sample=flops,
        energy_joules=trainer.energy.joules,
        trace=facts.trace,
        groups=GroupErrors(**msgspec.structs.asdict(facts.groups)) if facts.groups.total else None,
        # A diverged arm has no result, whatever it had reached before.
        final=facts.final if facts.diverged is None else None,
        final_raw=final_raw,
        baselines=baselines,
        diverged=facts.diverged,
        reasons=_reasons(trainer, inference, final_raw, flops),
        notes=trainer.notes,
    )


def _reasons(
    trainer: Trainer, inference: Inference, final_raw: Test | None, flops: float | None
) -> dict[str, str]:
    """One line for each value that was not measured, by its path."""
    facts, about, arm, recipe = trainer.facts, trainer.description, trainer.arm, trainer.arm.recipe
    early = (
        "the arm diverged" if facts.diverged is not None else "the run was stopped before its end"
    )
    final = facts.final if facts.diverged is None else None
    floors = [point.test.floor for point in facts.trace]
    last_only = (
        "the floor is measured at the last evaluation of a budget, with the averaged weights"
    )
    absent: dict[str, tuple[object, str | None]] = {
        "model.symmetry_verified": (
            facts.verified,
            _why_unverified(about.symmetry) if arm.verify is None else early,
        ),
        "recipe.compile": (trainer.preparation.backend, trainer.preparation.why_eager),
        "recipe.tuned_at": (recipe.tuned_at, "the recipe was not tuned by equivbench tune"),
        "recipe.tuning_log_sha256": (
            recipe.tuning_log_sha256,
            "the recipe was not tuned by equivbench tune",
        ),
        "recipe.clip_norm": (recipe.clip_norm, "the recipe does not clip gradients"),
        "matching.hardware": (about.matching.hardware, "the match does not depend on the hardware"),
        "inference.samples_per_second": (inference.samples_per_second, early),
        "flops_per_sample": (
            flops,
            early if hasattr(arm.model, "flops") else "the model gives no formula for its FLOPs",
        ),
        "energy_joules": (trainer.energy.joules, trainer.energy.reason),
        "groups": (facts.groups.total or None, early),
        "final": (final, early),
        "final.floor": (final is None or final.floor, last_only),
        "final_raw": (final_raw, early),
        "final_raw.floor": (final_raw is None or final_raw.floor, last_only),
    }
    absent |= {
        f"trace.{index}.test.floor": (floor, last_only) for index, floor in enumerate(floors)
    }
    return {path: str(reason) for path, (value, reason) in absent.items() if value is None}


def _why_unverified(symmetry: Symmetry) -> str:
    return (
        "no symmetry is declared"
        if symmetry == "none"
        else f"{symmetry} is declared and a larger group was measured"
    )


def throughput(
    step_seconds: list[float], batch_size: int, alternated_with: str | None
) -> Throughput:
    """Throughput and its spread from the seconds of single steps, timed in alternation with
    ``alternated_with``."""
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
        samples_per_second=batch_size * len(ordered) / sum(ordered),
        step_seconds=spread,
        alternated_with=alternated_with,
    )


def to_record(
    job: Job,
    outcome: Outcome,
    *,
    status: Status,
    reason: str | None,
    timing: Throughput,
    environment: Environment,
    git: Git,
) -> RunRecord:
    """The run record of ``job``; a null throughput gets its reason."""
    reasons = dict(outcome.reasons)
    if timing.samples_per_second is None:
        reasons["throughput.samples_per_second"] = "the run ended before its steps were timed"
    fields = {
        name: getattr(outcome, name)
        for name in outcome.__struct_fields__
        if name not in ("diverged", "reasons", "notes")
    }
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
