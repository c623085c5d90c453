"""From a job to a trainer: the registry's pair, arm, task, data and model put together."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
import torch._dynamo
from torch import nn

from equivbench.budget import Budget
from equivbench.errors import UsageError, unknown_name
from equivbench.measure.evaluator import Evaluator
from equivbench.measure.measurement import covers, is_verified
from equivbench.records.schema import DatasetRecord, Matching
from equivbench.registry import DATASETS, MODELS, PAIRS, TASKS, resolve
from equivbench.specs import ArmPreset, ArmSpec, ModelSpec, PairPreset, PairSpec, Recipe
from equivbench.symmetry.wrappers import wrap
from equivbench.tasks.base import DatasetSource, Task, TaskData
from equivbench.tasks.fraction import with_fraction
from equivbench.training import precision
from equivbench.training.arm import Arm
from equivbench.training.checkpoint import read_checkpoint
from equivbench.training.clock import Clock
from equivbench.training.job import Job
from equivbench.training.outcome import Description
from equivbench.training.preparation import evaluated_at_once
from equivbench.training.streams import seed_global
from equivbench.training.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class Plan:
    """The declarations that a job names, and the recipe that follows from them."""

    pair: PairSpec
    pair_preset: PairPreset
    arm: ArmSpec
    spec: ModelSpec
    config: Mapping[str, Any]
    recipe: Recipe
    variant: Mapping[str, str]
    task: Task


def plan(job: Job) -> Plan:
    """Look up what ``job`` names; raises ``UsageError`` for names, options or recipe fields that do
    not exist."""
    pair = PAIRS.get(job.pair)
    arm = pair.arm(job.arm)
    if job.preset not in pair.presets or job.preset not in arm.presets:
        raise unknown_name(
            f"preset of {job.pair}", job.preset, pair.presets.keys() & arm.presets.keys()
        )
    preset: ArmPreset = arm.presets[job.preset]
    task = cast(Task, resolve(TASKS.get(pair.task).factory)())
    spec = MODELS.get(arm.model)
    if job.kernels is not None and not spec.kernels:
        raise UsageError(
            f"model {spec.name!r} takes no kernel backend; leave out kernels={job.kernels!r}"
        )
    config = {
        **preset.config,
        **_config(preset, job.config),
        **({} if job.kernels is None else {"kernels": job.kernels}),
    }
    recipe = _recipe(preset.recipe, job.recipe)
    return Plan(
        pair, pair.presets[job.preset], arm, spec, config, recipe, _variant(task, job.variant), task
    )


def build_trainer(job: Job) -> Trainer:
    """The trainer of ``job``; restored from its last checkpoint if ``job.resume`` and there is one.

    Raises ``UsageError`` for unknown names and ``FailedError`` for data or checkpoints that cannot
    be read.
    """
    chosen = plan(job)
    device = torch.device(job.device)
    clock = Clock(
        synchronize=(lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else None
    )
    with clock.running():
        source: DatasetSource = resolve(DATASETS.get(chosen.pair_preset.dataset).factory)()
        data = with_fraction(source.load(), job.fraction)
        model = build_model(chosen, job.seed).to(device)
        arm = _arm(chosen, job, data, model, device, clock)
        base = Budget.parse(job.extends or job.budget)
        trainer = Trainer(
            arm,
            base,
            # A trial of a tuning is judged at its end alone.
            evaluations=1 if job.split == "validation" else chosen.pair_preset.evaluations,
            seed=job.seed,
            clock=clock,
            description=_description(chosen, job, data, model),
            folder=Path(job.state_dir),
            identity=_identity(chosen, job, data, device),
            snapshots=job.snapshots,
        )
        if not job.resume:
            trainer.clear()
        else:
            trainer.restore()
        budget = Budget.parse(job.budget)
        if budget != trainer.budget:
            trainer.extend(budget)
    return trainer


def build_model(chosen: Plan, seed: int) -> nn.Module:
    """The arm's model under the chosen options, its initial weights a function of ``seed`` alone;
    without its wrapper."""
    seed_global(seed, "init")
    model = resolve(chosen.spec.build)(chosen.config)
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"model {chosen.spec.name!r}: its build function returned {type(model).__name__}, not a torch.nn.Module"
        )
    adapted: nn.Module = chosen.task.adapt(model, chosen.variant)
    return adapted


def requirements(chosen: Plan, model: nn.Module) -> Mapping[str, float]:
    """The derived inputs that ``model`` needs: its own ``requires`` where it has one, else its
    declaration's."""
    return cast(Mapping[str, float], getattr(model, "requires", chosen.spec.requires))


def load_model(path: Path, weights: str = "ema") -> tuple[nn.Module, Task, Job]:
    """(the model of a run's checkpoint, in its wrapper, in evaluation mode; its task; its job).

    ``weights``: ``ema`` (averaged) or ``model`` (raw). Raises ``FailedError`` where the file is not
    a checkpoint.
    """
    checkpoint = read_checkpoint(path)
    job = msgspec.convert(checkpoint.facts.job, Job)
    chosen = plan(job)
    model = build_model(chosen, job.seed)
    model.load_state_dict(checkpoint.weights(weights), strict=False)
    return _wrapped(chosen, model).eval(), chosen.task, job


def _arm(
    chosen: Plan, job: Job, data: TaskData, model: nn.Module, device: torch.device, clock: Clock
) -> Arm:
    requires = requirements(chosen, model)
    recipe = dataclasses.replace(
        chosen.recipe, precision=precision.effective(chosen.recipe.precision, device)
    )
    preset, task = chosen.pair_preset, chosen.task
    group = preset.group or task.group
    at_once = preset.evaluated_at_once or evaluated_at_once(device)
    with clock.part("evaluate"):
        evaluator = Evaluator(
            task,
            data.split(job.split),
            requires=requires,
            rotations=preset.rotations,
            group=group,
            seed=0,
            device=device,
            samples=preset.test_samples,
            batch_size=at_once,
            precision=recipe.precision,
            untrained=lambda: task.untrained(data),
        )
    return Arm(
        task=task,
        split=data.train,
        model=model,
        module=_wrapped(chosen, model),
        requires=requires,
        recipe=recipe,
        evaluator=evaluator,
        verify=is_verified if covers(chosen.spec.symmetry, group) else None,
        device=device,
        evaluated_at_once=at_once,
    )


def _wrapped(chosen: Plan, model: nn.Module) -> nn.Module:
    if chosen.arm.wrapper is None:
        return model
    return wrap(chosen.arm.wrapper, model, chosen.task.fields, chosen.task.index_field)


def _recipe(preset: Recipe, override: Mapping[str, Any]) -> Recipe:
    known = {field.name for field in dataclasses.fields(Recipe)}
    for name in override:
        if name not in known:
            raise unknown_name("recipe field", name, known)
    return dataclasses.replace(preset, **override)


def _config(preset: ArmPreset, override: Mapping[str, Any]) -> dict[str, Any]:
    for name in override:
        if name not in preset.config:
            raise unknown_name("entry of the model's config", name, preset.config)
    return dict(override)


def _variant(task: Task, chosen: Mapping[str, str]) -> dict[str, str]:
    """Every option of the task with its value, the default where none was chosen."""
    for name, value in chosen.items():
        if name not in task.options:
            raise unknown_name(f"option of {task.name}", name, task.options)
        if value not in task.options[name]:
            raise unknown_name(f"value of {name}", value, task.options[name])
    return {name: chosen.get(name, values[0]) for name, values in task.options.items()}


def _description(chosen: Plan, job: Job, data: TaskData, model: nn.Module) -> Description:
    match, card = chosen.pair.matching, data.card
    return Description(
        task=chosen.task.name,
        dataset=DatasetRecord(
            name=card.name, version=card.version, sha256=card.sha256, sizes=dict(card.sizes)
        ),
        matching=Matching(
            what=match.what,
            hardware=match.hardware,
            target=match.target,
            # What was measured of the declared sizes says nothing of others.
            measured={} if job.config else dict(match.measured.get(job.preset, {})),
        ),
        model=chosen.spec.name,
        symmetry=chosen.spec.symmetry,
        config=chosen.config,
        wrapper=chosen.arm.wrapper,
        kernels=str(getattr(model, "kernels", job.kernels or "torch")),
        variant={**chosen.variant, **job.labels},
        job=msgspec.to_builtins(job),
    )


def _identity(chosen: Plan, job: Job, data: TaskData, device: torch.device) -> dict[str, Any]:
    """What must agree for a checkpoint to go on in this run."""
    recipe = msgspec.json.encode(dataclasses.asdict(chosen.recipe))
    return {
        "pair": job.pair,
        "arm": job.arm,
        "preset": job.preset,
        "variant": dict(chosen.variant),
        "kernels": job.kernels,
        "recipe": hashlib.sha256(recipe).hexdigest(),
        "config": msgspec.json.encode(chosen.config, order="deterministic").decode(),
        "dataset": data.card.sha256,
        "fraction": job.fraction,
        "labels": job.labels,
        "split": job.split,
        "device": device.type,
        "threads": job.threads,
    }
