"""The built-in tasks, models, pairs and data sets: torch-free tables gathered from each task's folder."""

from __future__ import annotations

from collections.abc import Iterator

from equivbench.pairs.base import Pair
from equivbench.registry import DatasetSpec, KernelBackendSpec, ModelSpec, TaskSpec

QUICK_START_PAIR = "forcefield/vector"


def tasks() -> Iterator[TaskSpec]:
    """Every built-in task."""
    from equivbench.tasks.forcefield.declarations import TASK

    yield TASK


def models() -> Iterator[ModelSpec]:
    """Every built-in model."""
    from equivbench.tasks.forcefield.declarations import MODELS

    yield from MODELS


def datasets() -> Iterator[DatasetSpec]:
    """Every built-in data set."""
    from equivbench.tasks.forcefield.declarations import DATASETS

    yield from DATASETS


def pairs() -> Iterator[Pair]:
    """Every built-in pair."""
    from equivbench.pairs import forcefield

    yield from forcefield.PAIRS


def kernel_backends() -> Iterator[KernelBackendSpec]:
    """Every built-in kernel backend (none yet)."""
    return iter(())
