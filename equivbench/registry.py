"""What is registered, built in or by plug-in, and how it is found by name. Imports no torch."""

from __future__ import annotations

import importlib
import importlib.metadata
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from equivbench.errors import EquivbenchWarning, UsageError, unknown_name
from equivbench.pairs import Pair

Symmetry = Literal["none", "octahedral", "so3", "o3"]
SYMMETRIES: tuple[Symmetry, ...] = ("none", "octahedral", "so3", "o3")
IN_PROCESS = "this process"
"""The origin of what user code registers directly."""
Factory = str | Callable[..., Any]
"""A callable, or ``package.module:attribute`` so that declaring it imports nothing."""


class DuplicateNameError(UsageError):
    """One name registered by two owners, both named in the message."""


class PluginWarning(EquivbenchWarning):
    """A plug-in could not be loaded and was left out."""


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
    except (
        Exception
    ) as error:  # the module is someone's code and may raise anything while it is imported
        raise UsageError(f"cannot load {factory!r}: {type(error).__name__}: {error}") from error
    return target


@dataclass(frozen=True)
class TaskSpec:
    """A task: ``factory()`` returns an :class:`equivbench.tasks.base.Task`.

    ``fields`` (:class:`equivbench.tasks.base.Field`) and ``board_unit`` repeat what the task class
    declares, for commands that must not import it; a task that gives them here takes its own from
    the same table.
    """

    name: str
    summary: str
    factory: Factory
    fields: tuple[Any, ...] = ()
    board_unit: str = ""


@dataclass(frozen=True)
class ModelSpec:
    """A network for one task: ``build(config)`` returns a ``torch.nn.Module``.

    ``requires`` names derived inputs the data pipeline must build, with their parameter
    (``{"edge_index": 5.0}``: a cutoff in A). ``symmetry`` is a declaration; it is measured in every
    run.
    """

    name: str
    task: str
    symmetry: Symmetry
    build: Factory
    requires: Mapping[str, float] = field(default_factory=dict)
    summary: str = ""
    kernels: bool = False
    """Whether ``config["kernels"]`` names the backend of its equivariant operations (``run
    --kernels``)."""

    def __post_init__(self) -> None:
        if self.symmetry not in SYMMETRIES:
            raise UsageError(
                f"model {self.name!r}: symmetry {self.symmetry!r} is not one of {', '.join(SYMMETRIES)}"
            )


@dataclass(frozen=True)
class DatasetSpec:
    """A data set: ``factory()`` returns an :class:`equivbench.tasks.base.DatasetSource`.

    What records of it are held against (:mod:`equivbench.records.plausibility`): ``checksums``, the
    SHA-256 by version where the content is the same for everybody, and ``lowest_loss``, the board
    metric that the rounding of the stored labels leaves to whoever knows them exactly: a network
    below it would predict digits that are not there.
    """

    name: str
    task: str
    summary: str
    factory: Factory
    checksums: Mapping[str, str] = field(default_factory=dict)
    lowest_loss: float | None = None


@dataclass(frozen=True)
class KernelBackendSpec:
    """A library that provides equivariant operations: ``factory()`` returns an
    :class:`equivbench.kernels.backend.Backend`.

    ``needs`` names the modules that must be importable and ``install`` the command that brings
    them; ``devices`` the kinds of device it runs on. Its own ``missing`` has the last word.
    """

    name: str
    summary: str
    factory: Factory
    needs: tuple[str, ...] = ()
    install: str = ""
    devices: tuple[str, ...] = ("cpu", "cuda")
    slow_to_build: bool = False
    """Whether it compiles for tens of seconds a case: quick looks leave it out unless it is
    named."""


T = TypeVar("T", TaskSpec, ModelSpec, DatasetSpec, KernelBackendSpec, Pair)


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered value and the distribution it comes from."""

    value: T
    origin: str


class Registry(Generic[T]):
    """Names to values of one kind, the built-in ones and those of plug-ins, which are loaded on the
    first look-up.

    A name registered twice is a :class:`DuplicateNameError` that names both owners.
    """

    def __init__(
        self, kind: str, builtin: Callable[[], Iterator[T]], plugins: PluginLoader
    ) -> None:
        self.kind = kind
        self._builtin: Callable[[], Iterator[T]] = builtin
        self._plugins = plugins
        self._entries: dict[str, Entry[T]] | None = None
        plugins.registries.append(self)

    def add(self, value: T) -> None:
        """Register ``value`` under its name; raises :class:`DuplicateNameError` if the name is
        taken."""
        self._put(self._own(), value, self._plugins.origin)

    def get(self, name: str) -> T:
        """The value called ``name``; raises :class:`UsageError` with the close matches."""
        return self.entry(name).value

    def entry(self, name: str) -> Entry[T]:
        """The value called ``name`` with its origin; raises :class:`UsageError` with the close
        matches."""
        entries = self.entries()
        if name not in entries:
            raise unknown_name(self.kind, name, entries)
        return entries[name]

    def entries(self) -> dict[str, Entry[T]]:
        """Everything registered, by name, plug-ins included."""
        self._plugins.load()
        return dict(self._own())

    def snapshot(self) -> dict[str, Entry[T]] | None:
        """What is registered now, for :meth:`restore`; None if nothing has been looked at yet."""
        return None if self._entries is None else dict(self._entries)

    def restore(self, snapshot: dict[str, Entry[T]] | None) -> None:
        """Go back to a :meth:`snapshot`: a plug-in that fails half-way leaves nothing behind."""
        self._entries = snapshot

    def _own(self) -> dict[str, Entry[T]]:
        if self._entries is None:
            entries: dict[str, Entry[T]] = {}
            for value in self._builtin():
                self._put(entries, value, "equivbench")
            self._entries = entries
        return self._entries

    def _put(self, entries: dict[str, Entry[T]], value: T, origin: str) -> None:
        name = key_of(value)
        taken = entries.get(name)
        if taken is not None:
            raise DuplicateNameError(
                f"{self.kind} {name!r} is registered twice: by {taken.origin} and by {origin}; rename one"
            )
        entries[name] = Entry(value, origin)


class PluginLoader:
    """Loads the entry points of all groups, once, on the first look-up in any registry.

    All groups at once, because one module of a plug-in may register a task, its models and a pair:
    what a look-up finds must not depend on which look-up came first. A plug-in that raises is one
    :class:`PluginWarning` that names it, and whatever it had registered is taken back; everything
    else keeps working.
    """

    def __init__(self, groups: tuple[str, ...]) -> None:
        self.groups = groups
        self.registries: list[Registry[Any]] = []
        self.origin = IN_PROCESS
        self.problems: dict[str, str] = {}
        """Why a plug-in was left out, by its owner."""
        self._loaded = False
        self._duplicate: DuplicateNameError | None = None

    def load(self) -> None:
        """Load what is not loaded yet; raises :class:`DuplicateNameError`, again on every look-up,
        if two plug-ins clash."""
        if not self._loaded:
            self._loaded = (
                True  # before the loop: a plug-in may itself look something up while it loads
            )
            installed = importlib.metadata.entry_points()
            points = (point for group in self.groups for point in installed.select(group=group))
            broken: set[tuple[str, str]] = set()
            for point in sorted(points, key=lambda point: (_owner(point), point.group, point.name)):
                if (_owner(point), point.module) not in broken and not self._load_one(point):
                    broken.add((_owner(point), point.module))
        if self._duplicate is not None:
            raise self._duplicate

    def _load_one(self, point: importlib.metadata.EntryPoint) -> bool:
        before = [registry.snapshot() for registry in self.registries]
        problem: str | None = None
        self.origin = _owner(point)
        try:
            # Importing the module runs its @register_... decorators; an entry point may also name a
            # spec or a Pair.
            self._adopt(point.load())
        except DuplicateNameError as error:
            self._duplicate = self._duplicate or error
        except (Exception, SystemExit) as error:  # noqa: BLE001  a plug-in may raise anything at import
            problem = f"{type(error).__name__}: {error}"
        else:
            return True
        finally:
            self.origin = IN_PROCESS
        for registry, snapshot in zip(self.registries, before, strict=True):
            registry.restore(snapshot)
        if problem is not None:
            self.problems[_owner(point)] = problem
            warnings.warn(
                f"plug-in {point.name!r} of {_owner(point)} was not loaded: {problem}",
                PluginWarning,
                stacklevel=5,
            )
        return False

    def _adopt(self, loaded: object) -> None:
        kinds: dict[type, Registry[Any]] = {
            TaskSpec: TASKS,
            ModelSpec: MODELS,
            Pair: PAIRS,
            DatasetSpec: DATASETS,
            KernelBackendSpec: KERNEL_BACKENDS,
        }
        registry = kinds.get(type(loaded))
        if registry is None:
            return
        # The module may have registered the very object itself, with register_pair for one.
        if all(entry.value is not loaded for entry in (registry.snapshot() or {}).values()):
            registry.add(loaded)


def _owner(point: importlib.metadata.EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module


def key_of(value: TaskSpec | ModelSpec | DatasetSpec | KernelBackendSpec | Pair) -> str:
    """The name a value is registered under: ``task/pair`` for pairs."""
    return f"{value.task}/{value.name}" if isinstance(value, Pair) else value.name


def _from(table: str) -> Callable[[], Iterator[Any]]:
    """The built-in values of one kind, read from the torch-free tables of ``equivbench.catalogue``
    on first use."""

    def load() -> Iterator[Any]:
        catalogue = importlib.import_module("equivbench.catalogue")
        yield from getattr(catalogue, table)()

    return load


PLUGINS = PluginLoader(
    ("equivbench.tasks", "equivbench.models", "equivbench.pairs", "equivbench.kernel_backends")
)
TASKS: Registry[TaskSpec] = Registry("task", _from("tasks"), PLUGINS)
MODELS: Registry[ModelSpec] = Registry("model", _from("models"), PLUGINS)
PAIRS: Registry[Pair] = Registry("pair", _from("pairs"), PLUGINS)
DATASETS: Registry[DatasetSpec] = Registry("dataset", _from("datasets"), PLUGINS)
KERNEL_BACKENDS: Registry[KernelBackendSpec] = Registry(
    "kernel backend", _from("kernel_backends"), PLUGINS
)
