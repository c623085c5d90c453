"""Finds a model, or a run with its snapshots, by what a user calls it."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from equivbench.environment import cache_dir, required
from equivbench.errors import FailedError, UsageError, unknown_name
from equivbench.execution.imported import called, imported
from equivbench.execution.state import STATE_FILE, read_state
from equivbench.records.store import read_record
from equivbench.registry import MODELS, PAIRS, resolve
from equivbench.specs import ModelSpec, Precision, Prediction, Symmetry
from equivbench.tasks.base import DatasetSource
from equivbench.tasks.forcefield.foreign.adapting import adapt
from equivbench.tasks.forcefield.foreign.calculators import (
    CalculatorModel,
    is_calculator,
    metatomic_calculator,
)
from equivbench.training.arm import load_model, resolve_arm
from equivbench.training.checkpoint import (
    CURRENT,
    SNAPSHOTS,
    read_checkpoint,
    snapshots_in,
    step_of,
)
from equivbench.training.job import Job, read_job


@dataclass(frozen=True)
class KeptRun:
    """A run with its snapshots (``run --snapshots``): files for
    :func:`equivbench.training.arm.load_model`, in order of their steps."""

    job: Job
    dataset_sha256: str
    snapshots: tuple[Path, ...]

    @property
    def name(self) -> str:
        """Where its record lies below a results folder's machine: ``task/pair/arm/run-id``; no path
        of this machine."""
        return f"{self.job.pair}/{self.job.arm}/{self.job.run_id}"

    def at(self, step: int | None) -> Path:
        """The snapshot of ``step`` (None: the last); raises ``UsageError`` naming the steps that
        there are."""
        steps = {step_of(path): path for path in self.snapshots}
        if step is None:
            return self.snapshots[-1]
        if step not in steps:
            raise UsageError(
                f"{self.name} kept no snapshot of step {step}; it has {', '.join(map(str, steps))}"
            )
        return steps[step]


def checkpoint_of(text: str) -> Path:
    """The checkpoint that ``text`` names: a checkpoint file (``.safetensors``), a run's record
    (``.json``) or its id.

    Raises ``UsageError`` for the id of several arms; ``FailedError`` for a record that cannot be
    read and a run whose checkpoint is not here.
    """
    if text.endswith(".safetensors"):
        return Path(text)
    if text.endswith(".json"):
        record = read_record(text)
        arm = (f"{record.task}/{record.pair}", record.arm)
        return the_one(record.run_id, checkpoints_of(record.run_id, arm))
    return the_one(text, checkpoints_of(text))


def checkpoints_of(run_id: str, arm: tuple[str, str] | None = None) -> dict[str, Path]:
    """Checkpoints in the cache of runs with this id, by what tells them apart; of one (pair, arm)
    if given."""
    found = {}
    for path in sorted((cache_dir() / "runs").glob(f"*/{STATE_FILE}")):
        state, checkpoint = read_state(path.parent), path.parent / CURRENT
        if state is None or not checkpoint.exists():
            continue
        records = [Path(record) for record in state.records.values()]
        if run_id != state.run_id and run_id not in [record.stem for record in records]:
            continue
        job = read_checkpoint(checkpoint).facts.job
        if arm is None or (job["pair"], job["arm"]) == arm:
            found[str(records[-1]) if records else str(checkpoint)] = checkpoint
    return found


def the_one(run_id: str, found: Mapping[str, Path]) -> Path:
    """The only checkpoint in ``found``.

    Raises ``FailedError`` where there is none; ``UsageError`` where there are several.
    """
    if not found:
        raise FailedError(
            f"run {run_id} has no checkpoint in {cache_dir() / 'runs'}; "
            "checkpoints stay in the cache of the machine"
        )
    if len(found) > 1:
        raise UsageError(
            f"run id {run_id} is that of several arms; "
            f"name one by its record or checkpoint: {', '.join(found)}"
        )
    return next(iter(found.values()))


def find_snapshots(text: str) -> KeptRun:
    """The run that ``text`` names: its record (``.json``), its id, or a checkpoint or snapshot of
    it (``.safetensors``).

    Raises ``UsageError`` for the id of several arms; ``FailedError`` for a run that is not in the
    cache, cannot be read, or kept no snapshots.
    """
    path = checkpoint_of(text)
    folder = path.parent.parent if path.parent.name == SNAPSHOTS else path.parent
    snapshots = snapshots_in(folder)
    facts = read_checkpoint(snapshots[-1] if snapshots else path).facts
    job = read_job(facts.job)
    if not snapshots:
        raise FailedError(
            f"run {text} kept no snapshots; train it with `equivbench run {job.pair} --snapshots`"
        )
    return KeptRun(job, str(facts.identity["dataset"]), tuple(snapshots))


@dataclass(frozen=True)
class FoundModel:
    """A model ready to be measured, and what is known about it."""

    name: str
    model: nn.Module
    task: str | None = None
    """The task it was made for, if that is known."""
    symmetry: Symmetry | None = None
    """What it declares, if it declares anything."""
    requires: Mapping[str, float] | None = None
    """None: what the model says itself."""
    precision: Precision | None = None
    dataset: DatasetSource | None = None
    """What it was trained on; None: the task's default."""
    untrained: bool = False


def find_model(text: str, predicts: Prediction | None = None) -> FoundModel:
    """The model that ``text`` names.

    A checkpoint file (``.safetensors``), a run's record (``.json``) or id,
    ``package.module:attribute`` (a module, or a callable that returns one; modules in the current
    folder too), ``ase:package.module:attribute`` (a calculator likewise), ``metatomic:FILE``, or a
    registered name (built with random weights).

    ``predicts``: what a network of another package does, for :func:`adapt`.

    Raises ``UsageError`` for a name that nothing has, or that several runs share; ``FailedError``
    for a run whose checkpoint is not here or cannot be read, and for a callable that raises.
    """
    kind, colon, rest = text.partition(":")
    if colon and kind == "metatomic":
        calculator = metatomic_calculator(Path(rest), predicts != "forces")
        return _of_calculator(text, CalculatorModel(calculator))
    if colon and kind == "ase":
        required("ase", "an ASE calculator is called", "ase")
        return _of_calculator(text, adapt(_calculator(rest), energy=predicts == "energy" or None))
    if predicts is not None and (":" not in text or text.endswith((".safetensors", ".json"))):
        raise UsageError(
            f"--as is for networks of other packages (package.module:attribute, metatomic:FILE); "
            f"{text} is a model of its task already"
        )
    if text.endswith((".safetensors", ".json")):
        return _trained(checkpoint_of(text))
    if ":" in text:
        named = _from_python(text)
        if predicts is None:
            return FoundModel(text, named)
        return FoundModel(text, adapt(named, energy=predicts == "energy"), "forcefield")
    entries = MODELS.entries()
    if text in entries:
        return _registered(entries[text].value)
    found = checkpoints_of(text)
    if not found:
        raise unknown_name("model", text, entries)
    return _trained(the_one(text, found))


def _trained(checkpoint: Path) -> FoundModel:
    """The model of a run with its averaged weights."""
    model, task, job = load_model(checkpoint)
    declared = resolve_arm(job)
    return FoundModel(
        name=f"{job.pair} {job.arm} {job.run_id}",
        model=model,
        task=task.name,
        symmetry=declared.spec.symmetry,
        requires=declared.requires(model),
        precision=declared.recipe.precision,
        dataset=declared.dataset(),
    )


def _registered(spec: ModelSpec) -> FoundModel:
    """A registered model with random weights, in the smallest size that a pair uses."""
    arms = [
        arm
        for entry in PAIRS.entries().values()
        for arm in entry.value.arms
        if arm.model == spec.name
    ]
    config = next((preset.config for arm in arms for preset in arm.presets.values()), {})
    model = _built(spec.name, resolve(spec.build), config)
    requires = getattr(model, "requires", spec.requires)
    return FoundModel(spec.name, model, spec.task, spec.symmetry, requires, untrained=True)


def _from_python(text: str) -> nn.Module:
    """The module that ``package.module:attribute`` is, or returns when called."""
    return _built(text, imported(text))


def _of_calculator(name: str, model: nn.Module) -> FoundModel:
    """A calculator as a model; its own precision is found out by the verification."""
    return FoundModel(name, model, "forcefield", precision="float32")


def _calculator(text: str) -> Any:
    """The ASE calculator that ``package.module:attribute`` is, or returns when called."""
    value = imported(text)
    if callable(value) and not is_calculator(value):
        value = called(text, value, [])
    if not is_calculator(value):
        raise UsageError(
            f"{text} is or returns a {type(value).__name__}, not an ASE calculator or a callable "
            "that returns one"
        )
    return value


def _built(name: str, value: Any, config: Mapping[str, Any] | None = None) -> nn.Module:
    """``value`` if it is a module, else ``value(config)``; ``value()`` where no config is given and
    none is needed."""
    if callable(value) and not isinstance(value, nn.Module):
        arguments: list[Mapping[str, Any]] = [config or {}]
        if config is None:
            with contextlib.suppress(TypeError, ValueError):
                inspect.signature(value).bind()
                arguments = []
        value = called(name, value, arguments)
    if not isinstance(value, nn.Module):
        raise UsageError(
            f"{name} is or returns a {type(value).__name__}, not a torch.nn.Module or a callable "
            f"that returns one{'; measure ase:' + name if is_calculator(value) else ''}"
        )
    return value
