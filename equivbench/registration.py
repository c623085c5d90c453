"""The decorators with which tasks, models, pairs, data sets and kernel backends are registered,
here and in other packages."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar, overload

from equivbench import registry
from equivbench.errors import UsageError
from equivbench.pairs import Pair
from equivbench.registry import (
    DatasetSpec,
    Factory,
    KernelBackendSpec,
    ModelSpec,
    Symmetry,
    TaskSpec,
)

F = TypeVar("F", bound=Callable[..., object])


def register_task(name: str, *, summary: str = "", board_unit: str = "") -> Callable[[F], F]:
    """Register a :class:`equivbench.tasks.base.Task` subclass, or a function that returns a task,
    as ``name``.

    ``board_unit`` is the unit of its board metric, shown by the board. Raises ``UsageError`` if the
    name is taken.
    """

    def decorate(factory: F) -> F:
        spec = TaskSpec(
            name=name,
            summary=summary or _first_line(factory),
            factory=factory,
            board_unit=board_unit,
        )
        registry.TASKS.add(spec)
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
    """Register ``build(config) -> torch.nn.Module`` as the model ``name`` of ``task``.

    ``symmetry`` (none, octahedral, so3, o3) is a declaration that every run measures. ``requires``
    names inputs that the data pipeline builds, with their parameter (``{"edge_index": 5.0}``: a
    cutoff in A). ``summary`` defaults to the first line of the docstring. ``kernels``: whether
    ``config["kernels"]`` names the backend of its operations. Raises ``UsageError`` for another
    symmetry or a name that is taken.
    """

    def decorate(build: F) -> F:
        line = summary or _first_line(build)
        registry.MODELS.add(
            ModelSpec(name, task, symmetry, build, dict(requires or {}), line, kernels)
        )
        return build

    return decorate


def register_dataset(name: str, *, task: str, summary: str = "") -> Callable[[F], F]:
    """Register a function that returns a :class:`equivbench.tasks.base.DatasetSource` as the data
    set ``name`` of ``task``."""

    def decorate(factory: F) -> F:
        registry.DATASETS.add(DatasetSpec(name, task, summary or _first_line(factory), factory))
        return factory

    return decorate


def register_kernel_backend(
    name: str,
    *,
    summary: str = "",
    needs: tuple[str, ...] = (),
    install: str = "",
    devices: tuple[str, ...] = ("cpu", "cuda"),
    slow_to_build: bool = False,
) -> Callable[[F], F]:
    """Register a function (or class) that returns an :class:`equivbench.kernels.backend.Backend` as
    ``name``.

    ``needs``: modules that must be importable, ``install``: the command that brings them,
    ``devices``: where it runs, ``slow_to_build``: whether it compiles for tens of seconds a case.
    Raises ``UsageError`` if the name is taken.
    """

    def decorate(factory: F) -> F:
        registry.KERNEL_BACKENDS.add(
            KernelBackendSpec(
                name,
                summary or _first_line(factory),
                factory,
                tuple(needs),
                install,
                tuple(devices),
                slow_to_build,
            )
        )
        return factory

    return decorate


@overload
def register_pair(pair: Pair) -> Pair: ...
@overload
def register_pair(pair: Callable[[], Pair]) -> Callable[[], Pair]: ...


def register_pair(pair: Pair | Callable[[], Pair]) -> Pair | Callable[[], Pair]:
    """Register a :class:`equivbench.pairs.Pair` as ``task/pair``; also a decorator of a function
    that returns one.

    Raises ``UsageError`` for anything else and if the name is taken.
    """
    value = pair if isinstance(pair, Pair) else pair()
    if not isinstance(value, Pair):
        raise UsageError(
            f"register_pair needs an equivbench.pairs.Pair or a function that returns one, not {value!r}"
        )
    registry.PAIRS.add(value)
    return pair


def _first_line(factory: Factory) -> str:
    documented = inspect.getdoc(factory)
    return documented.strip().splitlines()[0] if documented else ""
