"""The run record, filled from a trainer: each field where it is known, each null with its
reason."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
from torch import Tensor, nn

from equivbench.budget import Budget
from equivbench.environment import environment, git_state
from equivbench.measure.calls import call
from equivbench.measure.measurement import Verdict
from equivbench.records.reasons import plain_reason, without_places_in
from equivbench.records.schema import (
    RULES_VERSION,
    SCHEMA_VERSION,
    BudgetRecord,
    ClockRecord,
    DatasetRecord,
    Inference,
    MachineShare,
    Matching,
    Memory,
    ModelRecord,
    NotMeasured,
    RecipeRecord,
    RunRecord,
    Status,
    StepSeconds,
    Test,
    Throughput,
)
from equivbench.request import DEFAULT_KERNELS
from equivbench.symmetry.wrappers import wrap
from equivbench.training.arm import Arm
from equivbench.training.checkpoint import Facts
from equivbench.training.clock import Clock
from equivbench.training.job import Job
from equivbench.training.loop import StepTimes, Trainer

T = TypeVar("T")

# Asked once a process: a draft of the record is made after each evaluation, and the code that runs
# is that which was imported.
_environment, _git_state = cache(environment), cache(git_state)

TWIRLS = (2, 4, 8)
"""Rotations over which test-time averaging is timed."""


class Reasons(dict[str, str]):
    """Why values of a record are null, by their path in the record."""

    def or_null(self, path: str, value: T | NotMeasured | None, why: str = "") -> T | None:
        """``value`` for the field at ``path``; what is not measured becomes null there, with its
        own reason, and None with the reason ``why``."""
        if isinstance(value, NotMeasured):
            self[path] = plain_reason(value.reason)
            return None
        if value is None:
            self[path] = plain_reason(why)
        return value


def make_record(
    job: Job,
    trainer: Trainer,
    timed: Sequence[StepTimes],
    alternated_with: str | None,
    *,
    interrupted: bool = False,
    failed: str | None = None,
    inference_seconds: float = 1.0,
) -> RunRecord:
    """The record of ``trainer``'s run of ``job``.

    A completed run is measured once more here, off its budget: test sets that differ from the
    training data, forward passes (for about ``inference_seconds``), FLOPs and untrained
    predictors. Any other reports what is known; ``failed`` says why, ``interrupted`` that the user
    stopped it. The blocks ``timed`` were alternated with those of the arms ``alternated_with``.
    """
    arm, facts = trainer.arm, trainer.facts
    status, reason = _status(trainer, interrupted, failed)
    ended = "the arm diverged" if trainer.diverged else "the run was stopped before its end"
    reasons = Reasons()
    final = None if trainer.diverged else facts.final  # whatever a diverged arm had reached before
    unmeasured = NotMeasured(ended)
    end = _End({}, unmeasured, unmeasured, {})
    if status == "completed":
        end = _measure_end(trainer, inference_seconds)
    timing = throughput(timed, arm.recipe.batch_size, alternated_with)
    untimed = "the run ended before its steps were timed"
    reasons.or_null("throughput.samples_per_second", timing.samples_per_second, untimed)
    if trainer.devices > 1:
        unknown = untimed if not timed else "the whole batch does not fit into one device"
        reasons.or_null("throughput.scaling_efficiency", timing.scaling_efficiency, unknown)
    seconds = trainer.clock.seconds()
    where = _environment(job.device, job.threads, trainer.devices)
    record = RunRecord(
        schema_version=SCHEMA_VERSION,
        rules_version=RULES_VERSION,
        run_id=job.run_id,
        created=job.created,
        status=status,
        reason=reason,
        preset=job.request.preset,
        command=job.command,
        task=arm.task.name,
        dataset=msgspec.convert(arm.card, DatasetRecord, from_attributes=True),
        pair=job.pair.partition("/")[2],
        arm=job.arm,
        matching=_matching(job, arm, reasons),
        model=_model(job, arm, facts, reasons, ended),
        recipe=_recipe(arm, trainer.compiled, reasons),
        variant={**arm.declared.variant, **job.labels},
        seed=job.seed,
        budget=_budget(trainer),
        clock=ClockRecord(**seconds, wall=sum(seconds.values())),
        restarts=facts.restarts,
        lost_seconds=facts.lost_seconds,
        steps=facts.step,
        samples=facts.samples,
        epochs=facts.samples / len(arm.split),
        throughput=timing,
        inference=_inference(end.rates, reasons),
        memory=Memory(peak_bytes=reasons.or_null("memory.peak_bytes", trainer.memory.peak)),
        flops_per_sample=reasons.or_null("flops_per_sample", end.flops),
        energy_joules=reasons.or_null("energy_joules", trainer.energy.joules),
        rungs=facts.rungs,
        trace=facts.trace,
        final=reasons.or_null("final", final, ended),
        final_on_part=reasons.or_null("final_on_part", final and facts.final_on_part, ended),
        final_raw=reasons.or_null("final_raw", facts.final_raw, ended),
        final_ema=reasons.or_null("final_ema", facts.final_ema, ended),
        out_of_distribution=end.out_of_distribution,
        environment=where,
        git=_git_state(),
        # A resumed run took turns with those of the contest that it began in.
        contest=facts.job.get("contest") or job.contest or None,
        machine_share=_machine_share(trainer, seconds["stalled"], reasons),
        reasons=reasons,
        baselines=end.baselines,
        devices_per_arm=trainer.devices,
        **job.attested(where.machine_key, status),
    )
    if final is not None and final.floor is None and facts.verdict is not None:
        # A model that is not deterministic has no floor.
        record.reasons["final.floor"] = facts.verdict.reason
    return record


def throughput(
    timed: Sequence[StepTimes], batch_size: int, alternated_with: str | None
) -> Throughput:
    """Throughput and its spread from blocks of steps, timed in alternation with
    ``alternated_with``; on several devices how it compares with one."""
    if not timed:
        return Throughput(samples_per_second=None, step_seconds=None, alternated_with=None)
    # Of a reading in which the process was stopped nothing may be left.
    blocks = [block.seconds for block in timed if block.seconds > 0]
    readings = [seconds for block in timed for seconds in block.readings if seconds > 0]
    if not blocks:
        return Throughput(samples_per_second=None, step_seconds=None, alternated_with=None)
    p10, p50, p90 = np.quantile(readings, (0.1, 0.5, 0.9)).tolist()
    alone = [block.alone for block in timed if block.alone is not None]
    return Throughput(
        samples_per_second=batch_size / statistics.fmean(blocks),
        step_seconds=StepSeconds(p10=p10, p50=p50, p90=p90),
        alternated_with=alternated_with,
        # Blocks are read in pairs with those of the other arm: all of them, or none.
        blocks=blocks if len(blocks) == len(timed) else [],
        # Both in seconds of one device.
        scaling_efficiency=statistics.fmean(alone) / statistics.fmean(blocks) if alone else None,
    )


# --- what is measured once, at the end of a completed run


class _End(NamedTuple):
    """What is measured of a run that came to its end."""

    out_of_distribution: dict[str, Test]
    rates: dict[str, float] | NotMeasured
    flops: float | NotMeasured
    baselines: dict[str, float]


def _measure_end(trainer: Trainer, seconds: float) -> _End:
    arm, clock = trainer.arm, trainer.clock
    with trainer.running():
        trainer.prepare()
        with clock.part("evaluate"):
            baselines = arm.evaluator.baselines()
            further = {
                name: evaluator.evaluate(arm.module, floor=False).to_record()
                for name, evaluator in arm.further_evaluators().items()
            }
        with clock.part("timing"):
            inputs, _ = trainer.batches.canonical(arm.evaluated_at_once)
            rates = forward_rates(arm, inputs, clock.scratch(), seconds)
            # One device makes them, and the clock counts the seconds of all.
            rates = {name: trainer.devices * rate for name, rate in rates.items()}
        formula = getattr(arm.model, "flops", None)
        flops = None if formula is None else float(formula(inputs)) / arm.evaluated_at_once
    return _End(
        further,
        rates,
        NotMeasured("the model gives no formula for its FLOPs") if flops is None else flops,
        baselines,
    )


def forward_rates(
    arm: Arm, inputs: Mapping[str, Tensor], clock: Clock, seconds: float
) -> dict[str, float]:
    """Samples a second of forward passes with the weights that the arm holds now.

    All ways are timed in turn, on the same ``inputs`` of ``arm.evaluated_at_once`` samples and a
    ``clock`` of their own, once and then until ``seconds`` have passed; the median counts.

    Returns
    -------
    dict
        ``plain``, and of an arm without a wrapper ``2``, ``4``, ``8``: averaged over that many
        rotations at test time. An average of the model inside a wrapper would be that of another
        arm, and may be faster than the arm itself.
    """
    modules: dict[str, nn.Module] = {"plain": arm.module}
    averages = [] if arm.declared.arm.wrapper is not None else list(map(str, TWIRLS))
    for n in averages:
        modules[n] = wrap(f"twirl-{n}", arm.model, arm.task.fields, arm.task.index_field)
    times: dict[str, list[float]] = {name: [] for name in modules}
    for module in modules.values():
        module.eval()
    with clock.running(), arm.without_gradients(), arm.autocast():
        _forward_seconds(modules["plain"], inputs, clock)  # warm-up
        while not times["plain"] or clock.wall < seconds:
            for turn in [["plain", n] for n in averages] or [["plain"]]:
                for name in turn:
                    times[name].append(_forward_seconds(modules[name], inputs, clock))
    arm.module.train()
    return {
        name: arm.evaluated_at_once / statistics.median(rounds) for name, rounds in times.items()
    }


def _forward_seconds(module: nn.Module, inputs: Mapping[str, Tensor], clock: Clock) -> float:
    clock.synchronize()
    before = clock.wall
    call(module, inputs)
    clock.synchronize()
    return clock.wall - before


# --- parts of the record that are more than one field


def _status(trainer: Trainer, interrupted: bool, failed: str | None) -> tuple[Status, str | None]:
    if failed is not None:
        return "failed", plain_reason(failed)
    if trainer.diverged is not None:
        return "diverged", plain_reason(trainer.diverged)
    if interrupted:
        done = "before its steps were timed" if trainer.finished else "before its budget was spent"
        return "interrupted", f"stopped by the user {done}"
    return "completed", None


def _matching(job: Job, arm: Arm, reasons: Reasons) -> Matching:
    statement = arm.declared.pair.matching
    anywhere = "the match does not depend on the hardware"
    return Matching(
        what=statement.what,
        hardware=reasons.or_null("matching.hardware", statement.hardware, anywhere),
        target=statement.target,
        # What was measured of the declared sizes says nothing of others.
        measured={} if job.config else dict(statement.measured.get(job.request.preset, {})),
    )


def _model(job: Job, arm: Arm, facts: Facts, reasons: Reasons, ended: str) -> ModelRecord:
    symmetry = arm.declared.spec.symmetry
    verdict = facts.verdict or Verdict(None, ended)
    if symmetry == "none":
        verdict = Verdict(None, "no symmetry is declared")
    return ModelRecord(
        name=arm.declared.spec.name,
        symmetry=symmetry,
        symmetry_verified=reasons.or_null("model.symmetry_verified", verdict.holds, verdict.reason),
        symmetry_reason=None if verdict.holds is None else verdict.reason,
        parameters=sum(parameter.numel() for parameter in arm.model.parameters()),
        kernels=_kernels(job, arm),
        config=without_places_in(arm.declared.config),
        wrapper=arm.declared.arm.wrapper,
    )


def _kernels(job: Job, arm: Arm) -> str:
    """The backend of the model's operations; what else it may call ``kernels`` is its own."""
    if not arm.declared.spec.kernels:
        return DEFAULT_KERNELS
    return str(getattr(arm.model, "kernels", job.kernels or DEFAULT_KERNELS))


def _recipe(arm: Arm, compiled: str | NotMeasured, reasons: Reasons) -> RecipeRecord:
    """The fields of the recipe by their names; ``compile`` says how."""
    fields = {name: getattr(arm.recipe, name) for name in RecipeRecord.__struct_fields__}
    fields["compile"] = reasons.or_null("recipe.compile", compiled)
    not_tuned = "the recipe was not tuned by equivbench tune"
    reasons.or_null("recipe.tuned_at", arm.recipe.tuned_at, not_tuned)
    reasons.or_null("recipe.tuning_log_sha256", arm.recipe.tuning_log_sha256, not_tuned)
    unclipped = "the recipe does not clip gradients"
    reasons.or_null("recipe.clip_norm", arm.recipe.clip_norm, unclipped)
    return RecipeRecord(**fields)


def _budget(trainer: Trainer) -> BudgetRecord:
    budget, extends = trainer.budget, trainer.facts.extends
    return BudgetRecord(
        kind=budget.kind,
        limit=budget.limit,
        spent=trainer.spent,
        overshoot=max(0.0, trainer.spent - budget.limit),
        extends=None if extends is None else Budget.parse(extends).limit,
    )


def _machine_share(trainer: Trainer, stalled: float, reasons: Reasons) -> MachineShare | None:
    share = reasons.or_null("machine_share", trainer.machine.share(stalled))
    if share is not None:
        untold = "this operating system does not tell it"
        reasons.or_null("machine_share.load", share.load, untold)
        reasons.or_null("machine_share.steal", share.steal, untold)
        few = "fewer than two steps were timed"
        reasons.or_null("machine_share.p90_over_p10", share.p90_over_p10, few)
    return share


def _inference(rates: dict[str, float] | NotMeasured, reasons: Reasons) -> Inference:
    path = "inference.samples_per_second"
    if isinstance(rates, NotMeasured):
        return Inference(samples_per_second=reasons.or_null(path, rates))
    twirl = {name: rate for name, rate in rates.items() if name != "plain"}
    return Inference(samples_per_second=rates["plain"], twirl=twirl)
