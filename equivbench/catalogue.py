"""The built-in tasks, models, pairs and data sets: torch-free tables gathered from each task's
folder."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from equivbench.pairs import Pair
from equivbench.registry import DatasetSpec, KernelBackendSpec, ModelSpec, TaskSpec

QUICK_START_PAIR = "forcefield/vector"


def _declarations() -> tuple[ModuleType, ...]:
    from equivbench.tasks.flow import declarations as flow
    from equivbench.tasks.forcefield import declarations as forcefield
    from equivbench.tasks.voxel import declarations as voxel

    return forcefield, flow, voxel


def tasks() -> Iterator[TaskSpec]:
    """Every built-in task."""
    for declared in _declarations():
        yield declared.TASK


def models() -> Iterator[ModelSpec]:
    """Every built-in model."""
    for declared in _declarations():
        yield from declared.MODELS


def datasets() -> Iterator[DatasetSpec]:
    """Every built-in data set."""
    for declared in _declarations():
        yield from declared.DATASETS


def pairs() -> Iterator[Pair]:
    """Every built-in pair."""
    from equivbench.tasks.flow import pairs as flow
    from equivbench.tasks.forcefield import pairs as forcefield
    from equivbench.tasks.voxel import pairs as voxel

    for declared in (forcefield, flow, voxel):
        yield from declared.PAIRS


def kernel_backends() -> Iterator[KernelBackendSpec]:
    """Every built-in kernel backend."""
    from equivbench.kernels import backends as kernels

    yield from kernels.BACKENDS
