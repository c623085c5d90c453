"""What is registered under which name, the decorators that register it, and how plug-ins are found.

The built-in tasks, data sets, models, pairs and kernel backends come in through the entry points of
this package's own metadata (pyproject.toml), exactly as those of any other package do. Imports no
torch.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import pkgutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any, Generic, TypeVar, overload

from equivbench.errors import EquivbenchWarning, FailedError, UsageError, unknown_name
from equivbench.specs import (
    FILE_NAME,
    DatasetSpec,
    ExecutorSpec,
    Factory,
    KernelBackendSpec,
    ModelSpec,
    PairSpec,
    Symmetry,
    TaskSpec,
)

BUILT_IN = "equivbench"
"""The distribution, and so the origin, of what this package registers itself."""
IN_PROCESS = "this process"
"""The origin of what user code registers directly."""


class DuplicateNameError(UsageError):
    """One name registered by two owners, both named in the message."""


class PluginWarning(EquivbenchWarning):
    """A plug-in could not be loaded and was left out."""


def resolve(factory: Factory) -> Any:
    """The object that ``factory`` names (imported now) or is; raises ``UsageError`` if it cannot be
    loaded."""
    if not isinstance(factory, str):
        return factory
    module, _, attribute = factory.partition(":")
    if not module or not attribute:
        raise UsageError(f"{factory!r} is not of the form package.module:attribute")
    try:
        return pkgutil.resolve_name(factory)
    # The module is someone's code and may raise anything while it is imported.
    except Exception as error:
        raise UsageError(f"cannot load {factory!r}: {type(error).__name__}: {error}") from error


T = TypeVar("T", TaskSpec, DatasetSpec, ModelSpec, PairSpec, KernelBackendSpec, ExecutorSpec)


@dataclass(frozen=True)
class Registered(Generic[T]):
    """A registered value and the distribution it comes from."""

    value: T
    origin: str


class Registry(Generic[T]):
    """Names to values of one kind; plug-ins are loaded on the first look-up.

    A name registered twice is a :class:`DuplicateNameError` that names both owners.
    """

    def __init__(self, kind: str, holds: type[T], plugins: PluginLoader) -> None:
        self.kind = kind
        self.holds: type[T] = holds
        """The class of its values."""
        self._plugins = plugins
        self._entries: dict[str, Registered[T]] = {}
        plugins.registries.append(self)

    def add(self, value: T) -> None:
        """Register ``value`` under its name; raises ``UsageError`` for a name that no record could
        hold."""
        _check_names(self.kind, value)
        # First what the package itself provides, so that a clash names the newcomer second.
        self._plugins.load_built_in()
        name = value.key if isinstance(value, PairSpec) else value.name
        origin, taken = self._plugins.origin, self._entries.get(name)
        if taken is not None:
            raise DuplicateNameError(
                f"{self.kind} {name!r} is registered twice: by {taken.origin} and by {origin}; "
                "rename one"
            )
        self._entries[name] = Registered(value, origin)

    def get(self, name: str) -> T:
        """The value called ``name``; raises ``UsageError`` with the close matches."""
        return self.entry(name).value

    def entry(self, name: str) -> Registered[T]:
        """The value called ``name`` with its origin; raises like :meth:`get`."""
        entries = self.entries()
        if name not in entries:
            own = "; one of your own is known once a package registers it, docs/plugins.md says how"
            raise unknown_name(self.kind, name, entries, own)
        return entries[name]

    def entries(self) -> dict[str, Registered[T]]:
        """Everything registered, by name, plug-ins included."""
        self._plugins.load()
        return dict(self._entries)

    def known(self, name: str) -> T | None:
        """The value called ``name``, if it is built in or registered already: plug-ins are left
        alone, as by :meth:`without_plugins`."""
        self._plugins.load_built_in()
        found = self._entries.get(name)
        return None if found is None else found.value

    def without_plugins(self) -> dict[str, Registered[T]]:
        """What is built in or registered already, for code that reads other people's files: it must
        not run code that they might have brought."""
        self._plugins.load_built_in()
        return dict(self._entries)

    def snapshot(self) -> dict[str, Registered[T]]:
        """What is registered now, for :meth:`restore`."""
        return dict(self._entries)

    def restore(self, snapshot: dict[str, Registered[T]]) -> None:
        """Go back to a :meth:`snapshot`: a plug-in that fails half-way leaves nothing behind."""
        self._entries = dict(snapshot)


def _check_names(kind: str, value: object) -> None:
    """Raise ``UsageError`` for a name of ``value`` that validation would refuse in a record, before
    anything is trained under it."""
    parts = []
    if isinstance(value, PairSpec):
        parts = [("pair", value.name), *(("arm", arm.name) for arm in value.arms)]
    elif isinstance(value, TaskSpec):
        parts = [("task", value.name)]
    for what, name in parts:
        if not FILE_NAME.fullmatch(name):
            raise UsageError(
                f"{what} {name!r} cannot be part of a file name; "
                "use letters, digits and . _ + = - only"
            )
    name = str(getattr(value, "name", ""))
    if not (name.isascii() and name.isprintable()):
        raise UsageError(
            f"{kind} {name!r}: a name is of ASCII characters, which no letter of another script "
            "can be taken for"
        )


class PluginLoader:
    """Loads the entry points of all groups, once, on the first look-up in any registry.

    Those of this package come first; one that cannot be loaded is an error. A plug-in that raises
    is one :class:`PluginWarning` that names it, and whatever it had registered is taken back.
    """

    def __init__(self, groups: tuple[str, ...]) -> None:
        self.groups = groups
        self.registries: list[Registry[Any]] = []
        self.origin = IN_PROCESS
        """Who registers what is added now."""
        self.problems: dict[str, str] = {}
        """Why a plug-in was left out, by its owner."""
        self._built_in_loaded = not groups
        self._loaded = False
        self._duplicate: DuplicateNameError | None = None

    def load_built_in(self) -> None:
        """Register what this package provides, unless that was done."""
        if self._built_in_loaded:
            return
        try:
            points = importlib.metadata.distribution(BUILT_IN).entry_points
        except importlib.metadata.PackageNotFoundError:
            points = importlib.metadata.EntryPoints()
        mine = [point for point in points if point.group in self.groups]
        if not mine:
            raise FailedError(
                "equivbench finds none of its own tasks: it is imported from a folder in which it "
                "is not installed, or was installed before its tasks became entry points; install "
                "it with pip install -e ."
            )
        self._built_in_loaded = True  # before the loop: the modules may register something
        try:
            with self._taken_back_on_failure(BUILT_IN):
                for point in mine:
                    self._adopt(point.load())
        except BaseException as error:
            self._built_in_loaded = False
            if not isinstance(error, ImportError | AttributeError):
                raise
            raise FailedError(
                f"equivbench cannot load its own entry points ({error}); the installed metadata "
                "may be older than the code, so install it again with pip install -e ."
            ) from error

    def load(self) -> None:
        """Load what is not loaded yet; raises :class:`DuplicateNameError` if two clash."""
        self.load_built_in()
        if not self._loaded:
            self._loaded = True  # before the loop: a plug-in may look something up while it loads
            broken: set[tuple[str, str]] = set()
            for owner, point in self.installed():
                if (owner, point.module) not in broken and not self._load_one(owner, point):
                    broken.add((owner, point.module))
        if self._duplicate is not None:
            raise self._duplicate

    def installed(self) -> list[tuple[str, EntryPoint]]:
        """(distribution, entry point) of every plug-in but this package, in order."""
        points = importlib.metadata.entry_points()
        found = [
            (point.dist.name if point.dist is not None else point.module, point)
            for group in self.groups
            for point in points.select(group=group)
        ]
        plugins = (item for item in found if item[0] != BUILT_IN)
        return sorted(plugins, key=lambda item: (item[0], item[1].group, item[1].name))

    def _load_one(self, owner: str, point: EntryPoint) -> bool:
        try:
            with self._taken_back_on_failure(owner):
                self._adopt(point.load())
            return True
        except DuplicateNameError as error:
            self._duplicate = self._duplicate or error
        except (Exception, SystemExit) as error:  # noqa: BLE001  a plug-in may raise anything
            self.problems[owner] = f"{type(error).__name__}: {error}"
            warnings.warn(
                f"plug-in {point.name!r} of {owner} was not loaded: {self.problems[owner]}",
                PluginWarning,
                stacklevel=5,
            )
        return False

    def _adopt(self, loaded: object) -> None:
        """Register what an entry point names: a spec or several.

        A module or function has registered what it wants with its decorators while it was imported.
        """
        if isinstance(loaded, tuple | list):
            for each in loaded:
                self._adopt(each)
            return
        for registry in self.registries:
            if isinstance(loaded, registry.holds):
                # The module may have registered the very object itself, with register_pair say.
                if all(entry.value is not loaded for entry in registry.snapshot().values()):
                    registry.add(loaded)
                return

    @contextmanager
    def _taken_back_on_failure(self, owner: str) -> Iterator[None]:
        before = [(registry, registry.snapshot()) for registry in self.registries]
        self.origin = owner
        try:
            yield
        except BaseException:
            for registry, snapshot in before:
                registry.restore(snapshot)
            raise
        finally:
            self.origin = IN_PROCESS


PLUGINS = PluginLoader(
    (
        "equivbench.tasks",
        "equivbench.datasets",
        "equivbench.models",
        "equivbench.pairs",
        "equivbench.kernel_backends",
        "equivbench.executors",
    )
)
TASKS = Registry("task", TaskSpec, PLUGINS)
DATASETS = Registry("dataset", DatasetSpec, PLUGINS)
MODELS = Registry("model", ModelSpec, PLUGINS)
PAIRS = Registry("pair", PairSpec, PLUGINS)
KERNEL_BACKENDS = Registry("kernel backend", KernelBackendSpec, PLUGINS)
EXECUTORS = Registry("executor", ExecutorSpec, PLUGINS)


def board_units() -> dict[str, str]:
    """The unit of each task's loss on the board, by the task's name."""
    return {name: entry.value.board_unit for name, entry in TASKS.entries().items()}


F = TypeVar("F", bound=Callable[..., object])


def _registering(
    registry: Registry[T], summary: str, spec: Callable[[str, F], T]
) -> Callable[[F], F]:
    """A decorator that adds ``spec(summary, factory)``; without a summary the first line of the
    docstring serves."""

    def decorate(factory: F) -> F:
        documented = inspect.getdoc(factory)
        first = documented.strip().splitlines()[0] if documented else ""
        registry.add(spec(summary or first, factory))
        return factory

    return decorate


def register_task(name: str, *, summary: str = "", board_unit: str = "") -> Callable[[F], F]:
    """Register a :class:`equivbench.tasks.base.Task` subclass, or a function that returns a task;
    raises ``UsageError``, as all of these do, if the name is taken.

    Parameters
    ----------
    name, summary
        The name under which it is asked for; a line for people, by default the docstring's first.
    board_unit
        Unit of its board metric, which the board shows.
    """
    return _registering(
        TASKS, summary, lambda line, task: TaskSpec(name, line, task, board_unit=board_unit)
    )


def register_dataset(name: str, *, task: str, summary: str = "") -> Callable[[F], F]:
    """Register a function that returns a :class:`equivbench.tasks.base.DatasetSource`.

    Parameters
    ----------
    name, task, summary
        The name under which it is asked for, and the task whose data it holds; a line for people,
        by default the docstring's first.
    """
    return _registering(
        DATASETS, summary, lambda line, source: DatasetSpec(name, task, line, source)
    )


def register_model(
    name: str,
    *,
    task: str,
    symmetry: Symmetry,
    requires: Mapping[str, float] | None = None,
    summary: str = "",
    kernels: bool = False,
    operations: Iterable[str] = (),
) -> Callable[[F], F]:
    """Register a function ``build(config) -> torch.nn.Module``.

    Parameters
    ----------
    name, task, summary
        The name under which it is asked for, and the task that it is a network for; a line for
        people, by default the docstring's first.
    symmetry
        ``none``, ``octahedral``, ``so3`` or ``o3``: a declaration that every run measures.
    requires
        Inputs that the data pipeline builds, with their parameter (``{"edge_index": 5.0}``: a
        cutoff in A).
    kernels
        Whether ``config["kernels"]`` names the backend of its equivariant operations.
    operations
        Names of the operations that it takes from that backend: ``run --kernels`` then refuses one
        that lacks them before anything is trained.
    """
    needed, taken = dict(requires or {}), tuple(operations)
    return _registering(
        MODELS,
        summary,
        lambda line, build: ModelSpec(name, task, symmetry, build, needed, line, kernels, taken),
    )


def register_executor(name: str, *, summary: str = "") -> Callable[[F], F]:
    """Register a class, or a function, that returns an
    :class:`equivbench.execution.executors.Executor`, for ``run --executor NAME``."""
    return _registering(
        EXECUTORS, summary, lambda line, executor: ExecutorSpec(name, line, executor)
    )


@overload
def register_pair(pair: PairSpec) -> PairSpec: ...
@overload
def register_pair(pair: Callable[[], PairSpec]) -> Callable[[], PairSpec]: ...


def register_pair(pair: PairSpec | Callable[[], PairSpec]) -> PairSpec | Callable[[], PairSpec]:
    """Register a pair as ``task/pair``; also a decorator of a function that returns one. Raises
    ``UsageError`` for anything else."""
    value = pair if isinstance(pair, PairSpec) else pair()
    if not isinstance(value, PairSpec):
        raise UsageError(
            "register_pair needs an equivbench.PairSpec or a function that returns one, not "
            f"{value!r}"
        )
    PAIRS.add(value)
    return pair


def register_kernel_backend(
    name: str,
    *,
    summary: str = "",
    needs: Iterable[str] = (),
    install: str = "",
    devices: Iterable[str] = ("cpu", "cuda"),
    slow_to_build: bool = False,
    operations: Iterable[str] = (),
    max_derivatives: int = 2,
    cpu_operations: Iterable[str] = (),
) -> Callable[[F], F]:
    """Register a function (or class) that returns an :class:`equivbench.kernels.backend.Backend`.

    Parameters
    ----------
    name, summary
        The name under which it is asked for; a line for people, by default the docstring's first.
    needs, install
        Modules that must be importable, and the command that brings them.
    devices
        Kinds of device that it runs on.
    slow_to_build
        Whether it compiles for tens of seconds a case.
    operations
        Names of the operations that it does, as ``equivbench list kernels --json`` shows them.
    max_derivatives
        How often these can be differentiated; training on conservative forces takes two.
    cpu_operations
        Those of the ``operations`` that it does on a CPU alone.
    """
    modules, kinds, done = tuple(needs), tuple(devices), tuple(operations)
    on_cpu = tuple(cpu_operations)
    return _registering(
        KERNEL_BACKENDS,
        summary,
        lambda line, backend: KernelBackendSpec(
            name,
            line,
            backend,
            modules,
            install,
            kinds,
            slow_to_build,
            done,
            max_derivatives,
            on_cpu,
        ),
    )
