"""``measure_equivariance``: the symmetry decomposition of any model of a task, in one call."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import nn

from equivbench.errors import EquivbenchWarning, ModelError, UsageError
from equivbench.measure.evaluator import Evaluator
from equivbench.measure.measurement import Doubling, Measurement
from equivbench.measure.precision import PRECISION_OF, EvaluationPrecision
from equivbench.registry import DATASETS, TASKS, resolve
from equivbench.specs import By, Group, Symmetry
from equivbench.symmetry.quadrature import HIGHEST_DEGREE, quadrature_degree
from equivbench.tasks.base import DatasetSource, Split, Task, TaskData

_DOUBLED_SAMPLES = 4
_RESOLVED = 0.01
"""How far the equivariance error may move when the degree of a quadrature is doubled."""


def measure_equivariance(
    model: nn.Module,
    task: Task | str,
    *,
    split: str | Split = "test",
    rotations: int | str = 4,
    group: Group = "so3",
    seed: int = 0,
    device: torch.device | str = "auto",
    requires: Mapping[str, float] | None = None,
    precision: EvaluationPrecision | None = None,
    data: TaskData | str | None = None,
    samples: int | None = None,
    symmetry: Symmetry = "none",
    by: By = "stratum",
    of: str | None = None,
) -> Measurement:
    """How much of a model's error is a symmetry error, with the numerical floor below which it
    could not be seen, and whether the symmetry holds.

    Costs at most 1.2 times the forward passes of the rotations, where samples times rotations are
    100 or more.

    Parameters
    ----------
    model
        Called with the task's inputs by keyword, returns a mapping of outputs.
    task
        A task, or the name of a registered one.
    split
        ``test``, ``validation`` or ``train`` of ``data``, or a split itself.
    rotations
        Draws per sample, at least 2; for ``octahedral`` 24 or more is the whole group, whose
        averages are exact. ``"quadrature:DEGREE"``: the points of a quadrature, for single
        structures, where independent draws give one digit; ``doubled`` then says what twice the
        degree gives on at most four of the samples.
    group
        ``so3``, ``o3`` (each rotation turned inside out with probability 1/2) or ``octahedral``.
    seed
        Of rotations and noise.
    device
        ``auto`` is where the model's weights are; the model is moved to any other.
    requires
        Inputs that the data pipeline must build, with their parameter (``{"edge_index": 5.0}``);
        None: those that the model's attribute of this name tells, if it has one.
    precision
        ``float64``, ``float32``, ``tf32`` or ``bf16`` (autocast); None: that of the model's
        weights.
    data
        The data set, or the name of a registered one; None: the task's default (the first
        registered). On grids under SO(3) its training split gives the floor: with a split itself
        and no data, the floor is not measured.
    samples
        How many samples, spread over all groups of the split; None is all.
    symmetry
        What the model declares: ``octahedral``, ``so3`` or ``o3``, which ``verdict`` is then about;
        ``none``: it is about ``group``.
    by
        What the parts in ``Measurement.by`` are of: ``stratum`` (the task's own), ``magnitude``
        (quarters of the rows by the size of the target), ``component`` (irreps of the prediction's
        symmetry type), ``irrep`` (irreps of the group: docs/makeup.md), ``layer`` (the model's
        features, :class:`equivbench.measure.layers.LayerPart`).
    of
        The output that is judged, such as the ``stress`` of a force field; None: the task's
        prediction.

    Returns
    -------
    Measurement
        In the task's board unit, averaged over the prediction's rows.

    Raises
    ------
    UsageError
        For unknown names; ``ModelError``, which is one, for models that do not take the task's
        inputs, do not give its outputs, or change what they are lent.
    FailedError
        If the data set is missing or broken.
    """
    chosen = cast(Task, resolve(TASKS.get(task).factory)()) if isinstance(task, str) else task
    if of is not None:
        chosen = chosen.judged_on(of)
    _must_be_module(model, chosen)
    where = _device(model) if device == "auto" else torch.device(device)
    if isinstance(data, str):
        data = dataset_named(data, chosen.name).load()
    if data is None and isinstance(split, str):
        data = default_dataset(chosen.name).load()
    asked = data.split(split) if data is not None and isinstance(split, str) else split
    needs = getattr(model, "requires", {}) if requires is None else requires
    if unseen := chosen.not_shown(needs, cast(Split, asked)):
        warnings.warn(unseen, EquivbenchWarning, stacklevel=2)
    evaluator = partial(
        Evaluator,
        chosen,
        chosen.within_reach(model, cast(Split, asked)),
        requires=needs,
        group=group,
        seed=seed,
        device=where,
        symmetry=symmetry,
        precision=precision or _precision(model, where),
    )
    placed = model.to(where)
    with torch.inference_mode(False):
        found = evaluator(
            rotations=rotations,
            samples=samples,
            by=by,
            untrained=lambda: {} if data is None else chosen.untrained(data),
        ).evaluate(placed)
        degree = quadrature_degree(rotations)
        if degree is None or 2 * degree > HIGHEST_DEGREE:
            return found
        few = min(found.samples, _DOUBLED_SAMPLES)
        once, twice = (
            found
            if each == degree and few == found.samples
            else evaluator(rotations=f"quadrature:{each}", samples=few).evaluate(placed, False)
            for each in (degree, 2 * degree)
        )
        return replace(found, doubled=_doubling(2 * degree, found, once, twice))


def _doubling(degree: int, found: Measurement, once: Measurement, twice: Measurement) -> Doubling:
    moved = once.equivariance - twice.equivariance
    change = moved / twice.equivariance if twice.equivariance else math.copysign(math.inf, moved)
    if moved == 0:
        change = 0.0
    explained = (found.allowed or 0.0) * twice.total
    return Doubling(
        degree,
        twice.samples,
        twice.share,
        change,
        agrees=abs(change) <= _RESOLVED or abs(moved) <= explained,
    )


def _must_be_module(model: object, task: Task) -> None:
    if not isinstance(model, nn.Module):
        raise ModelError(f"a {type(model).__name__} is no torch.nn.Module{task.advice}")


def dataset_named(name: str, task: str) -> DatasetSource:
    """The data set registered as ``name``; raises ``UsageError`` if there is none, or if it is one
    of another task than ``task``."""
    spec = DATASETS.get(name)
    if spec.task != task:
        raise UsageError(
            f"the data set {name} is of task {spec.task}, not {task}; `equivbench list datasets` "
            "says which are"
        )
    return cast(DatasetSource, resolve(spec.factory)())


def default_dataset(task: str) -> DatasetSource:
    """The first data set registered for ``task``; raises ``UsageError`` if there is none."""
    return cast(DatasetSource, resolve(DATASETS.get(default_dataset_name(task)).factory)())


def default_dataset_name(task: str) -> str:
    """Its name; raises the same."""
    for name, entry in DATASETS.entries().items():
        if entry.value.task == task:
            return name
    raise UsageError(
        f"no data set is registered for task {task!r}; register one, or pass a split instead of "
        "its name"
    )


def _weights(model: nn.Module) -> torch.Tensor | None:
    return next(
        (
            tensor
            for tensor in (*model.parameters(), *model.buffers())
            if tensor.is_floating_point()
        ),
        None,
    )


def _device(model: nn.Module) -> torch.device:
    weights = _weights(model)
    return torch.device("cpu") if weights is None else weights.device


def _precision(model: nn.Module, device: torch.device) -> EvaluationPrecision:
    """The model's own arithmetic: its weights' dtype, and TF32 where this process uses it."""
    weights = _weights(model)
    dtype = torch.get_default_dtype() if weights is None else weights.dtype
    if (
        dtype == torch.float32
        and device.type == "cuda"
        and torch.get_float32_matmul_precision() != "highest"
    ):
        return "tf32"
    if dtype not in PRECISION_OF:
        raise UsageError(
            f"a model of {dtype} cannot be measured; use float64, float32 or bfloat16 weights"
        )
    return PRECISION_OF[dtype]
