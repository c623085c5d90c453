"""From a job to a trainer: the registry's pair, arm, task, data and model put together."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from equivbench.measure.evaluator import Evaluator
from equivbench.measure.verification import covers, is_verified
from equivbench.records.schema import NotMeasured
from equivbench.request import Budget
from equivbench.tasks.base import Task, TaskData
from equivbench.tasks.splits import with_fraction
from equivbench.training.arm import Arm, ResolvedArm, effective_precision, resolve_arm
from equivbench.training.checkpoint import read_checkpoint
from equivbench.training.clock import Clock, clock_of
from equivbench.training.job import Job, read_job
from equivbench.training.loop import Trainer


def build_trainer(job: Job) -> Trainer:
    """The trainer of ``job``; restored from its last checkpoint if it is to be resumed and there
    is one.

    Raises ``UsageError`` for names that are not registered, and a budget that cannot be read;
    ``FailedError`` for data or checkpoints that cannot be read.
    """
    declared = resolve_arm(job)
    clock = clock_of(torch.device(job.device))
    with clock.running():
        data = with_fraction(declared.dataset().load(), job.fraction)
        arm = _build_arm(declared, job, data, clock)
        trainer = Trainer(
            arm,
            Budget.parse(job.extends or job.budget),
            # A trial of a tuning is judged at its end alone.
            evaluations=1 if job.split == "validation" else declared.pair_preset.evaluations,
            seed=job.seed,
            clock=clock,
            job=msgspec.to_builtins(job),
            identity=_identity(job, arm),
            folder=Path(job.state_dir),
            snapshots=job.request.snapshots,
        )
        if job.request.resume:
            trainer.restore()
        else:
            trainer.clear()
        budget = Budget.parse(job.budget)
        if budget != trainer.budget:
            trainer.extend(budget)
    return trainer


def load_model(path: Path, weights: str = "ema") -> tuple[nn.Module, Task, Job]:
    """(the model of a run's checkpoint, in its wrapper, in evaluation mode; its task; its job).

    ``weights``: ``ema`` (averaged) or ``model`` (raw). Raises ``FailedError`` where the file is not
    a checkpoint.
    """
    checkpoint = read_checkpoint(path)
    job = read_job(checkpoint.facts.job)
    declared = resolve_arm(job)
    model = declared.build_model(job.seed)
    model.load_state_dict(checkpoint.weights(weights), strict=False)
    return declared.wrapped(model).eval(), declared.task, job


def _build_arm(declared: ResolvedArm, job: Job, data: TaskData, clock: Clock) -> Arm:
    device = torch.device(job.device)
    preset, task, symmetry = declared.pair_preset, declared.task, declared.spec.symmetry
    model = declared.build_model(job.seed).to(device)
    precision = effective_precision(declared.recipe.precision, device)
    group = preset.group or task.group
    at_once = preset.evaluated_at_once or _evaluated_at_once(device)
    with clock.part("evaluate"):
        evaluator = Evaluator(
            task,
            data.split(job.split),
            requires=declared.requires(model),
            rotations=preset.rotations,
            group=group,
            seed=0,
            device=device,
            samples=preset.test_samples,
            batch_size=at_once,
            precision=precision,
            untrained=lambda: task.untrained(data),
        )
    undeclared = (
        "no symmetry is declared"
        if symmetry == "none"
        else f"{symmetry} is declared and a larger group was measured"
    )
    return Arm(
        declared=declared,
        card=data.card,
        split=data.train,
        model=model,
        module=declared.wrapped(model),
        recipe=replace(declared.recipe, precision=precision),
        evaluator=evaluator,
        verify=is_verified if covers(symmetry, group) else NotMeasured(undeclared),
        device=device,
        evaluated_at_once=at_once,
    )


def _evaluated_at_once(device: torch.device) -> int:
    """Samples in a forward pass without gradients, of either arm, where the pair's preset does not
    say.

    Few on a CPU, whose caches they then fit (PaiNN, two cores: 16 at once take 0.43 s for the test
    set where 64 take 0.59 s).
    """
    return 16 if device.type == "cpu" else 256


def _identity(job: Job, arm: Arm) -> dict[str, Any]:
    """What must agree for a checkpoint to go on in this run."""
    declared = arm.declared
    recipe = msgspec.json.encode(asdict(declared.recipe))
    return {
        "pair": job.pair,
        "arm": job.arm,
        "preset": job.request.preset,
        "variant": dict(declared.variant),
        "kernels": job.kernels,
        "recipe": hashlib.sha256(recipe).hexdigest(),
        "config": msgspec.json.encode(declared.config, order="deterministic").decode(),
        "dataset": arm.card.sha256,
        "fraction": job.fraction,
        "labels": job.labels,
        "split": job.split,
        "device": arm.device.type,
        "threads": job.threads,
    }
