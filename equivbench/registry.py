"""What is registered, built in or by plug-in, and how it is found by name. Imports no torch."""

from __future__ import annotations

import importlib
import importlib.metadata
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from equivbench.errors import UsageError, unknown_name
from equivbench.pairs.base import Pair

Symmetry = Literal["none", "octahedral", "so3", "o3"]
SYMMETRIES: tuple[Symmetry, ...] = ("none", "octahedral", "so3", "o3")
Factory = str | Callable[..., Any]
"""A callable, or ``package.module:attribute`` so that declaring it imports nothing."""


def resolve(factory: Factory) -> Any:
    """The object that ``factory`` names (imported now) or is."""
    if not isinstance(factory, str):
        return factory
    module, _, attribute = factory.partition(":")
    if not module or not attribute:
        raise UsageError(f"{factory!r} is not of the form package.module:attribute")
    try:
        target: Any = importlib.import_module(module)
        for name in attribute.split("."):
            target = getattr(target, name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"cannot load {factory!r}: {error}") from error
    return target


@dataclass(frozen=True)
class TaskSpec:
    """A task: ``factory()`` returns an :class:`equivbench.tasks.base.Task`."""

    name: str
    summary: str
    factory: Factory


@dataclass(frozen=True)
class ModelSpec:
    """A network for one task: ``build(config)`` returns a ``torch.nn.Module``.

    ``requires`` names derived inputs the data pipeline must build, with their parameter (``{"edge_index": 5.0}``: a
    cutoff in A). ``symmetry`` is a declaration; it is measured in every run.
    """

    name: str
    task: str
    symmetry: Symmetry
    build: Factory
    requires: Mapping[str, float] = field(default_factory=dict)
    summary: str = ""

    def __post_init__(self) -> None:
        if self.symmetry not in SYMMETRIES:
            raise UsageError(f"model {self.name!r}: symmetry {self.symmetry!r} is not one of {', '.join(SYMMETRIES)}")


@dataclass(frozen=True)
class DatasetSpec:
    """A data set: ``factory()`` returns an :class:`equivbench.tasks.base.DatasetSource`."""

    name: str
    task: str
    summary: str
    factory: Factory


@dataclass(frozen=True)
class KernelBackendSpec:
    """A library that provides equivariant operations (issue 4 gives it its contract)."""

    name: str
    summary: str
    factory: Factory


T = TypeVar("T", TaskSpec, ModelSpec, DatasetSpec, KernelBackendSpec, Pair)


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered value and the distribution it comes from."""

    value: T
    origin: str


class Registry(Generic[T]):
    """Names to values of one kind; plug-ins of its entry-point group are loaded on the first look-up.

    A plug-in that raises while loading is one warning that names it; a name registered twice is an error that names
    both owners.
    """

    def __init__(self, kind: str, group: str | None, builtin: Callable[[], Iterator[T]]) -> None:
        self.kind = kind
        self._group = group
        self._builtin = builtin
        self._entries: dict[str, Entry[T]] = {}
        self._loaded = False
        self._origin = "this process"

    def add(self, value: T) -> None:
        """Register ``value`` under its name; raises :class:`UsageError` if the name is taken."""
        self._load_builtin()
        self._put(value, self._origin)

    def get(self, name: str) -> T:
        """The value called ``name``; raises :class:`UsageError` with the close matches."""
        return self.entry(name).value

    def entry(self, name: str) -> Entry[T]:
        """The value called ``name`` with its origin; raises :class:`UsageError` with the close matches."""
        entries = self.entries()
        if name not in entries:
            raise unknown_name(self.kind, name, entries)
        return entries[name]

    def entries(self) -> dict[str, Entry[T]]:
        """Everything registered, by name, plug-ins included."""
        self._load_builtin()
        self._load_plugins()
        return dict(self._entries)

    def _put(self, value: T, origin: str) -> None:
        name = key_of(value)
        taken = self._entries.get(name)
        if taken is not None:
            raise UsageError(f"{self.kind} {name!r} is registered twice: by {taken.origin} and by {origin}")
        self._entries[name] = Entry(value, origin)

    def _load_builtin(self) -> None:
        if not any(entry.origin == "equivbench" for entry in self._entries.values()):
            for value in self._builtin():
                self._put(value, "equivbench")

    def _load_plugins(self) -> None:
        if self._loaded or self._group is None:
            return
        self._loaded = True
        for point in importlib.metadata.entry_points(group=self._group):
            origin = point.dist.name if point.dist is not None else point.value
            self._origin = origin
            before = dict(self._entries)
            try:
                # Importing the module runs its @register_... decorators; an entry point may also name a spec itself.
                loaded = point.load()
                if isinstance(loaded, TaskSpec | ModelSpec | DatasetSpec | KernelBackendSpec | Pair):
                    if key_of(loaded) not in self._entries:
                        self._put(loaded, origin)  # type: ignore[arg-type]
            except UsageError:
                raise
            except Exception as error:  # noqa: BLE001  a plug-in may raise anything at import
                self._entries = before
                warnings.warn(f"plug-in {point.name!r} of {origin} was not loaded: {type(error).__name__}: {error}", stacklevel=2)
            finally:
                self._origin = "this process"


def key_of(value: TaskSpec | ModelSpec | DatasetSpec | KernelBackendSpec | Pair) -> str:
    """The name a value is registered under: ``task/pair`` for pairs."""
    return f"{value.task}/{value.name}" if isinstance(value, Pair) else value.name


def _from(table: str) -> Callable[[], Iterator[Any]]:
    """The built-in values of one kind, read from the torch-free tables of ``equivbench.catalogue`` on first use."""

    def load() -> Iterator[Any]:
        catalogue = importlib.import_module("equivbench.catalogue")
        yield from getattr(catalogue, table)()

    return load


TASKS: Registry[TaskSpec] = Registry("task", "equivbench.tasks", _from("tasks"))
MODELS: Registry[ModelSpec] = Registry("model", "equivbench.models", _from("models"))
PAIRS: Registry[Pair] = Registry("pair", "equivbench.pairs", _from("pairs"))
DATASETS: Registry[DatasetSpec] = Registry("dataset", "equivbench.tasks", _from("datasets"))
KERNEL_BACKENDS: Registry[KernelBackendSpec] = Registry("kernel backend", "equivbench.kernel_backends", _from("kernel_backends"))
