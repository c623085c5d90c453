"""The decorators that register tasks, data sets, models, pairs, kernel backends and executors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar, overload

from equivbench import registry
from equivbench.errors import UsageError
from equivbench.specs import (
    DatasetSpec,
    ExecutorSpec,
    KernelBackendSpec,
    ModelSpec,
    PairSpec,
    Symmetry,
    TaskSpec,
)

F = TypeVar("F", bound=Callable[..., object])


def register_task(name: str, *, summary: str = "", board_unit: str = "") -> Callable[[F], F]:
    """Register a :class:`equivbench.tasks.base.Task` subclass, or a function that returns a task.

    Parameters
    ----------
    name
        The name under which it is asked for.
    summary
        A line for people; by default the first of the docstring.
    board_unit
        Unit of its board metric, which the board shows.

    Raises
    ------
    UsageError
        If the name is taken.
    """

    def decorate(factory: F) -> F:
        line = summary or _first_line(factory)
        registry.TASKS.add(TaskSpec(name, line, factory, board_unit=board_unit))
        return factory

    return decorate


def register_dataset(name: str, *, task: str, summary: str = "") -> Callable[[F], F]:
    """Register a function that returns a :class:`equivbench.tasks.base.DatasetSource`.

    Parameters
    ----------
    name, task
        The name under which it is asked for, and the task whose data it holds.
    summary
        A line for people; by default the first of the docstring.

    Raises
    ------
    UsageError
        If the name is taken.
    """

    def decorate(factory: F) -> F:
        registry.DATASETS.add(DatasetSpec(name, task, summary or _first_line(factory), factory))
        return factory

    return decorate


def register_model(
    name: str,
    *,
    task: str,
    symmetry: Symmetry,
    requires: Mapping[str, float] | None = None,
    summary: str = "",
    kernels: bool = False,
) -> Callable[[F], F]:
    """Register a function ``build(config) -> torch.nn.Module``.

    Parameters
    ----------
    name, task
        The name under which it is asked for, and the task that it is a network for.
    symmetry
        ``none``, ``octahedral``, ``so3`` or ``o3``: a declaration that every run measures.
    requires
        Inputs that the data pipeline builds, with their parameter (``{"edge_index": 5.0}``: a
        cutoff in A).
    summary
        A line for people; by default the first of the docstring.
    kernels
        Whether ``config["kernels"]`` names the backend of its equivariant operations.

    Raises
    ------
    UsageError
        For another symmetry, or if the name is taken.
    """

    def decorate(build: F) -> F:
        line = summary or _first_line(build)
        registry.MODELS.add(
            ModelSpec(name, task, symmetry, build, dict(requires or {}), line, kernels)
        )
        return build

    return decorate


def register_executor(name: str, *, summary: str = "") -> Callable[[F], F]:
    """Register a class, or a function, that returns an
    :class:`equivbench.execution.executors.Executor`, for ``run --executor NAME``.

    Parameters
    ----------
    name
        The name under which it is asked for.
    summary
        A line for people; by default the first of the docstring.

    Raises
    ------
    UsageError
        If the name is taken.
    """

    def decorate(factory: F) -> F:
        registry.EXECUTORS.add(ExecutorSpec(name, summary or _first_line(factory), factory))
        return factory

    return decorate


@overload
def register_pair(pair: PairSpec) -> PairSpec: ...
@overload
def register_pair(pair: Callable[[], PairSpec]) -> Callable[[], PairSpec]: ...


def register_pair(pair: PairSpec | Callable[[], PairSpec]) -> PairSpec | Callable[[], PairSpec]:
    """Register a pair as ``task/pair``; also a decorator of a function that returns one.

    Raises
    ------
    UsageError
        For anything that is neither, and if the name is taken.
    """
    value = pair if isinstance(pair, PairSpec) else pair()
    if not isinstance(value, PairSpec):
        raise UsageError(
            "register_pair needs an equivbench.PairSpec or a function that returns one, not "
            f"{value!r}"
        )
    registry.PAIRS.add(value)
    return pair


def register_kernel_backend(
    name: str,
    *,
    summary: str = "",
    needs: Iterable[str] = (),
    install: str = "",
    devices: Iterable[str] = ("cpu", "cuda"),
    slow_to_build: bool = False,
) -> Callable[[F], F]:
    """Register a function (or class) that returns an :class:`equivbench.kernels.backend.Backend`.

    Parameters
    ----------
    name
        The name under which it is asked for.
    summary
        A line for people; by default the first of the docstring.
    needs, install
        Modules that must be importable, and the command that brings them.
    devices
        Kinds of device that it runs on.
    slow_to_build
        Whether it compiles for tens of seconds a case.

    Raises
    ------
    UsageError
        If the name is taken.
    """

    def decorate(factory: F) -> F:
        line = summary or _first_line(factory)
        registry.KERNEL_BACKENDS.add(
            KernelBackendSpec(
                name, line, factory, tuple(needs), install, tuple(devices), slow_to_build
            )
        )
        return factory

    return decorate


def _first_line(factory: object) -> str:
    documented = inspect.getdoc(factory)
    return documented.strip().splitlines()[0] if documented else ""
