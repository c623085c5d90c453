"""What a command is asked for, declared once: its options, its keywords and its command line.

A request is a frozen dataclass whose fields are made by :func:`option`. From these fields follow
the options of the command (:mod:`equivbench.cli.options`), the keywords of ``equivbench.run``, and
the command line that a record keeps. A new option of ``equivbench run`` is one field of
:class:`RunRequest` and the place that uses it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self, get_type_hints

from equivbench.errors import UsageError, unknown_name
from equivbench.option import Option
from equivbench.records.reasons import without_places_in
from equivbench.specs import Precision, Preset

QUICK_START_PAIR = "forcefield/vector"
"""What is run where no pair is named."""
DEVICES = ("auto", "cpu", "cuda")
DEFAULT_KERNELS = "torch"
"""What a network's operations run on where nothing else is asked for."""
THREADS = "How many CPU threads to use. The default is one for each physical core"
"""What ``--threads`` is in every command; a run has shares of the cores besides."""
MOST_RUNGS = 20
"""Smaller budgets that a run may measure on its way."""
Forces = Literal["direct", "conservative"]
_MOST_SEEDS = 1000
_OPTIONS: dict[type[Any], Mapping[str, Option]] = {}
"""Those of each class of request: its types are texts, which take a millisecond to read."""
_RANGE = re.compile(r"(\d+)-(\d+)", re.ASCII)


def option(default: Any, help: str, **about: Any) -> Any:
    """A field of a request; ``about`` holds further fields of :class:`Option`."""
    return field(default=default, metadata={"option": {"help": help, **about}})


def same_option(request: type[Request], name: str) -> Any:
    """A field like the one called ``name`` of another ``request``."""
    (found,) = (each for each in fields(request) if each.name == name)
    return field(default=found.default, metadata=found.metadata)


def options_of(request: type[Request]) -> Mapping[str, Option]:
    """Every option of ``request`` by its field's name, in the order of the fields."""
    if request in _OPTIONS:
        return _OPTIONS[request]
    hints = get_type_hints(request)
    found = {}
    for each in fields(request):
        about = {"flag": f"--{each.name.replace('_', '-')}", **each.metadata["option"]}
        found[each.name] = Option(each.name, type=hints[each.name], default=each.default, **about)
    _OPTIONS[request] = found
    return found


@dataclass(frozen=True, kw_only=True)
class Request:
    """What one command is asked for. Subclasses add fields, each made by :func:`option`."""

    program: ClassVar[tuple[str, ...]] = ()
    """The words of the command itself: ``("run",)``."""

    @classmethod
    def of(cls, **given: Any) -> Self:
        """The request for ``given`` options, by field name or by option name (``arm`` is ``arms``).

        A value may be text as on the command line; None takes the default.

        Raises ``UsageError`` for an option that does not exist and for a value that cannot be read.
        """
        options = options_of(cls)
        by_flag = {str(each.flag).lstrip("-").replace("-", "_"): each for each in options.values()}
        values = {}
        for name, value in given.items():
            found = options.get(name) or by_flag.get(name)
            if found is None:
                raise unknown_name("option", name, options)
            values[found.name] = found.value(value)
        return cls(**values)

    def command(self, *, recorded: bool = False) -> str:
        """The command line that asks for the same; options at their default are left out.

        Parameters
        ----------
        recorded
            Whether the command is for a record: without the results folder, which changes nothing
            and may name a user's folders, and with other paths cut to their last part.
        """
        words = ["equivbench", *self.program]
        # Positional words first, whichever class of the request they come from.
        options = sorted(options_of(type(self)).items(), key=lambda each: each[1].flag is not None)
        for name, each in options:
            if each.recorded or not recorded:
                words += each.words(getattr(self, name))
        return shlex.join(without_places_in(words) if recorded else words)

    @classmethod
    def of_command(cls, command: str) -> Self:
        """The request that the command line ``command`` asks for: the way back from
        :meth:`command`.

        Raises ``UsageError`` for another command, and for words that are no options of this one.
        """
        start = ("equivbench", *cls.program)
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise UsageError(f"it is no command line ({error})") from None
        if tuple(words[: len(start)]) != start:
            raise UsageError(f"it does not begin with `{' '.join(start)}`")
        by_flag = {each.flag: each for each in options_of(cls).values()}
        given: dict[str, Any] = {}
        left = iter(words[len(start) :])
        for word in left:
            name = word if word.startswith("--") else None
            if name not in by_flag:
                raise unknown_name("option", word, [each for each in by_flag if each])
            found = by_flag[name]
            if found.type is bool:
                given[found.name] = True
                continue
            text = word if name is None else next(left, None)
            if text is None:
                raise UsageError(f"{word} is given no value")
            several = found.is_list and found.read is None
            given[found.name] = (
                (*given.get(found.name, ()), text) if several else found.number(text)
            )
        missing = [
            str(each.flag)
            for each in options_of(cls).values()
            if each.default is MISSING and each.name not in given
        ]
        if missing:
            raise UsageError(f"it does not say {missing[0]}")
        return cls.of(**given)

    def check_choices(self) -> None:
        """Raise ``UsageError`` for a value that is not among its option's choices."""
        for name, each in options_of(type(self)).items():
            each.value(getattr(self, name))

    def identity(self) -> dict[str, Any]:
        """What makes a run of this request this run and no other, by option."""
        found = {}
        for name, each in options_of(type(self)).items():
            if each.identity:
                value = getattr(self, name)
                found[name] = None if value == each.implied else value
        return found


def read_seeds(text: str) -> tuple[int, ...]:
    """The seeds that ``text`` names: whole numbers and ranges, ``0,1,2`` or ``0-5`` or ``0-2,7``.

    Raises ``UsageError`` for anything else, and for more than 1000 seeds.
    """
    seeds: list[int] = []
    for part in text.split(","):
        between = _RANGE.fullmatch(part.strip())
        try:
            first, last = map(int, between.groups()) if between else (int(part), int(part))
        except ValueError:
            raise UsageError(
                f"cannot read the seeds {text!r}; "
                "write whole numbers or a range, such as 0,1,2 or 0-5"
            ) from None
        if last < first:
            raise UsageError(f"the range of seeds {part.strip()!r} ends before it begins")
        if last - first >= _MOST_SEEDS:
            raise UsageError(f"--seeds {text} names more than {_MOST_SEEDS} seeds")
        seeds += range(first, last + 1)
    return tuple(seeds)


def write_seeds(seeds: Sequence[int]) -> str:
    """``seeds`` as :func:`read_seeds` takes them."""
    return ",".join(map(str, seeds))


def write_number(value: float) -> str:
    """``value`` as short as it reads back exactly: ``4`` for 4.0."""
    return f"{value:.0f}" if abs(value) < 1e15 and value == int(value) else repr(float(value))


@dataclass(frozen=True, kw_only=True)
class RunRequest(Request):
    """What ``equivbench run`` is asked for; None takes the pair's or the machine's default."""

    program: ClassVar[tuple[str, ...]] = ("run",)

    pairs: tuple[str, ...] = option(
        (),
        "The pairs to train, as task/pair. Without one, the quick-start pair is trained.",
        flag=None,
        metavar="PAIR",
        completes="pairs",
    )
    arms: tuple[str, ...] = option(
        (),
        "Train this arm instead of the two contestants; `list pairs --json` names all. May be "
        "repeated.",
        flag="--arm",
        completes="arms",
    )
    budget: str | None = option(
        None,
        "The budget of each arm: 60s, 5min, 0.5h, 2000steps or 1e6samples. "
        "The default is the preset's.",
        identity=True,
    )
    seeds: tuple[int, ...] | None = option(
        None,
        "The seeds, such as 0,1,2 or 0-5. The default is 0.",
        read=read_seeds,
        write=write_seeds,
    )
    n_seeds: int | None = option(
        None, "Train with this many seeds, from 0 on. A verdict takes three or more."
    )
    preset: Preset = option("small", "How large data, models and budgets are.", identity=True)
    dataset: str | None = option(
        None,
        "Another data set of the task than the preset's, a name of `list datasets`. The recipes "
        "stay those that were tuned on the preset's.",
        identity=True,
        completes="datasets",
    )
    device: str = option(
        "auto",
        "Where to compute: auto, cpu, cuda or cuda:N.",
        identity=True,
        completes=DEVICES,
    )
    devices: tuple[str, ...] | None = option(
        None,
        "Several devices, such as cuda:0,cuda:1: one contest a device, side by side. cpu:0,cpu:1 "
        "are equal shares of the cores that the run may use, each held by one contest. With this "
        "there is no --device.",
        read=lambda text: tuple(each.strip() for each in text.split(",") if each.strip()),
        write=",".join,
    )
    devices_per_arm: int = option(
        1,
        "How many devices train each arm together, every one a part of each batch: the first K "
        "GPUs, K equal shares of the cores, or K in a row of --devices. Budgets count device "
        "seconds.",
        identity=True,
        implied=1,
    )
    threads: int | None = option(
        None,
        f"{THREADS}, of each contest's share with --devices, of each device's with "
        "--devices-per-arm.",
        identity=True,
    )
    kernels: str | None = option(
        None,
        "The backend of the equivariant operations, a name of `list kernels`. "
        "The default is torch.",
        implied=DEFAULT_KERNELS,
        identity=True,
        completes="kernels",
    )
    forces: Forces | None = option(
        None,
        "How every arm predicts forces: as an output of the network (direct, the default), or as "
        "the gradient of its energy (conservative).",
        implied="direct",
        identity=True,
    )
    precision: Precision | None = option(
        None,
        "The arithmetic of every arm, in training and evaluation: float32, tf32 (on a GPU alone) "
        "or bf16. The default is the preset's, in which recipes were tuned.",
        identity=True,
    )
    rungs: int | None = option(
        None,
        "How many smaller budgets (a half, a quarter, ...) to measure on the way, each with a "
        "cooldown of its own. The default is the preset's.",
        identity=True,
    )
    extend: float | None = option(
        None,
        "Train the arm that is behind further, to this many times the budget.",
        write=write_number,
    )
    out: str = option("results", "The results folder.", identity=True, recorded=False)
    snapshots: bool = option(
        False,
        "Keep the weights of every evaluation, which `analyze` can then look at.",
        identity=True,
    )
    keep_weights: bool = option(
        False,
        "Put the weights of every result beside its record (.safetensors), for `results audit` "
        "elsewhere. The cache has them in any case.",
        recorded=False,
    )
    resume: bool = option(
        False, "Go on with the unfinished runs of the same request.", recorded=False
    )
    dry_run: bool = option(
        False, "Check the request and print the plan without training.", recorded=False
    )
    executor: str = option(
        "local",
        "What runs the plan: local (this machine), slurm (an array of jobs) or ray (a cluster).",
        recorded=False,
        completes="executors",
    )
    executor_option: tuple[str, ...] = option(
        (),
        "Something for the executor, as KEY=VALUE: partition=gpu for slurm, address=auto for ray. "
        "May be repeated.",
        metavar="KEY=VALUE",
        recorded=False,
    )
    workers: int | None = option(
        None,
        "How many contests slurm or ray may run at once. The default is as many as there are.",
        recorded=False,
    )
    detach: bool = option(
        False,
        "Return once the jobs are submitted; `equivbench status` says how far they are (slurm).",
        recorded=False,
    )

    @property
    def chosen_seeds(self) -> tuple[int, ...]:
        """The seeds of ``seeds`` or ``n_seeds``; seed 0 where neither is given.

        Raises ``UsageError`` where both are given, and for a number of seeds that makes no sense.
        """
        if self.n_seeds is None:
            return (0,) if self.seeds is None else self.seeds
        if self.seeds is not None:
            raise UsageError("--seeds and --n-seeds exclude each other; give one of them")
        if not 1 <= self.n_seeds <= _MOST_SEEDS:
            raise UsageError(f"--n-seeds must be between 1 and {_MOST_SEEDS}, not {self.n_seeds}")
        return tuple(range(self.n_seeds))

    @property
    def variant(self) -> dict[str, str]:
        """The options of the task that are asked for, where they differ from every model's own."""
        # Direct forces are every model's output: asking for them is asking for no option.
        return {} if self.forces in (None, "direct") else {"forces": str(self.forces)}

    def resuming(self) -> Self:
        """The request that goes on with what this one began."""
        return replace(self, resume=True)
