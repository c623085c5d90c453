"""Finds a model by what a user calls it: a run, a checkpoint, a Python name or a registered
name."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from equivbench.errors import EquivbenchError, FailedError, UsageError, unknown_name
from equivbench.execution.runs import checkpoint_of, checkpoints_of, the_one
from equivbench.registry import MODELS, PAIRS, resolve
from equivbench.specs import ModelSpec, Precision, Symmetry
from equivbench.tasks.base import DatasetSource
from equivbench.training.arm import resolve_arm
from equivbench.training.assembly import load_model


@dataclass(frozen=True)
class FoundModel:
    """A model ready to be measured, and what is known about it."""

    name: str
    model: nn.Module
    task: str | None
    """The task it was made for, if that is known."""
    symmetry: Symmetry | None
    """What it declares, if it declares anything."""
    requires: Mapping[str, float] | None
    """None: what the model says itself."""
    precision: Precision | None = None
    dataset: DatasetSource | None = None
    """What it was trained on; None: the task's default."""
    untrained: bool = False


def find_model(text: str) -> FoundModel:
    """The model that ``text`` names.

    A checkpoint file (``.safetensors``), a run's record (``.json``) or id,
    ``package.module:attribute`` (a module, or a callable that returns one; modules in the current
    folder too), or a registered name (built with random weights).

    Raises
    ------
    UsageError
        For a name that nothing has, or that several runs share.
    FailedError
        For a run whose checkpoint is not here or cannot be read, and for a callable that raises.
    """
    if text.endswith((".safetensors", ".json")):
        return _trained(checkpoint_of(text))
    if ":" in text:
        return FoundModel(
            name=text, model=_from_python(text), task=None, symmetry=None, requires=None
        )
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
    model = _as_module(spec.name, _call(spec.name, resolve(spec.build), config))
    requires = getattr(model, "requires", spec.requires)
    return FoundModel(spec.name, model, spec.task, spec.symmetry, requires, untrained=True)


def _from_python(text: str) -> nn.Module:
    """The module that ``package.module:attribute`` is, or returns when called (a ``build(config)``
    gets an empty config)."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        value = resolve(text)
    finally:
        sys.path.remove(here)
    if isinstance(value, nn.Module) or not callable(value):
        return _as_module(text, value)
    return _as_module(text, _call(text, value))


def _call(name: str, build: Any, config: Mapping[str, Any] | None = None) -> Any:
    """``build(config)``, or ``build()`` where no config is given and none is needed."""
    try:
        if config is None and not _needs_argument(build):
            return build()
        return build(config or {})
    except EquivbenchError:
        raise
    except Exception as error:  # someone's code, which may raise anything
        raise FailedError(
            f"{name} failed to build its model: {type(error).__name__}: {error}"
        ) from error


def _needs_argument(build: Any) -> bool:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(build).parameters.values()
    return any(
        each.kind in positional and each.default is inspect.Parameter.empty for each in parameters
    )


def _as_module(name: str, value: Any) -> nn.Module:
    if not isinstance(value, nn.Module):
        raise UsageError(
            f"{name} is or returns a {type(value).__name__}, "
            "not a torch.nn.Module or a callable that returns one"
        )
    return value
