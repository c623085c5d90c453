"""From a request to the contests it means, and what the machine that runs them gives: device,
threads, folders that can be written."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psutil

from equivbench.budget import Budget
from equivbench.counted import counted
from equivbench.environment import machine_key, no_arithmetic, usable_cores
from equivbench.errors import FailedError, UsageError, unknown_name
from equivbench.execution.chosen_data import check_prepared, chosen_dataset
from equivbench.execution.chosen_kernels import check_kernels
from equivbench.execution.shares import core_shares
from equivbench.gpu import why_not_shared
from equivbench.kernels.backends import absent
from equivbench.records.declared import PRECISION
from equivbench.registry import KERNEL_BACKENDS, PAIRS, TASKS
from equivbench.request import DEFAULT_KERNELS, MOST_RUNGS, QUICK_START_PAIR, RunRequest
from equivbench.schedule import rung_budgets
from equivbench.specs import ArmSpec, PairSpec, TaskSpec
from equivbench.training.job import Job, Place


@dataclass(frozen=True)
class Machine:
    """The device and the CPU threads that every arm of a contest computes with."""

    device: str
    """``cpu``, ``cuda`` or ``cuda:N``."""
    threads: int
    name: str = ""
    """What the user called it where that is not the device: ``cpu:1`` is a share of the cores."""
    cpus: tuple[int, ...] = ()
    """Those that its processes keep to; empty: all that they may use."""
    further: tuple[Place, ...] = ()
    """The other devices of every arm, with as many threads each."""

    @property
    def kind(self) -> str:
        """The kind of machine, as records name it."""
        return machine_key(self.device, self.threads, len(self.further) + 1)

    @property
    def names(self) -> list[str]:
        """Its devices, as records name them."""
        return [self.name or self.device, *(place.name for place in self.further)]


def this_machine(request: RunRequest) -> Machine:
    """What ``request`` means on the machine that this process runs on.

    Raises ``FailedError`` where the device, its arithmetic, the kernel backend or the data set that
    was asked for is not here, or the device is not for as many processes as a contest has arms.
    """
    if request.dataset is not None:
        check_prepared(request.dataset)
    device = resolve_device(request.device)
    if device.startswith("cuda"):
        reason = why_not_shared(device, 1 if len(request.arms) == 1 else 2)
        if reason is not None:
            raise FailedError(reason)
    if request.precision is not None:
        reason = no_arithmetic(request.precision, device)
        if reason is not None:
            raise FailedError(f"--precision {request.precision}: {reason}")
    if request.kernels is not None:
        reason = absent(KERNEL_BACKENDS.get(request.kernels), device)
        if reason is not None:
            raise FailedError(f"--kernels {request.kernels}: {reason}")
    return Machine(device, request.threads if request.threads is not None else default_threads())


def machines_of(request: RunRequest) -> tuple[Machine, ...]:
    """The devices of this machine that ``request`` means, each for one contest at a time; those
    that train an arm together are one.

    ``cpu:0,cpu:1`` are equal shares of the cores that this process may use. The CPU threads of
    several devices are equal parts of those that one would have.

    Raises ``FailedError`` for a device that is not here, for more shares than cores, and for
    devices of two kinds.
    """
    names, together = request.devices, request.devices_per_arm
    if names is None:
        if together == 1:
            return (this_machine(request),)
        device = resolve_device(request.device)
        names = tuple(f"{device}:{number}" for number in range(together))
    if names[0].startswith("cpu"):
        machines = _shares_of_cpu(request, len(names))
    else:
        threads = request.threads or max(1, default_threads() // len(names))
        machines = [
            Machine(this_machine(replace(request, device=name)).device, threads) for name in names
        ]
    if len({each.kind for each in machines}) > 1:
        kinds = ", ".join(f"{each.device} is {each.kind}" for each in machines)
        raise FailedError(
            f"--devices names two kinds of device, whose results are not compared ({kinds}); "
            "run each kind by itself"
        )
    return tuple(
        _together(machines[first : first + together]) for first in range(0, len(machines), together)
    )


def _together(machines: Sequence[Machine]) -> Machine:
    """All of ``machines`` as one, which trains an arm together."""
    first, *others = machines
    further = [Place(each.device, each.name or each.device, each.cpus) for each in others]
    return replace(first, further=tuple(further))


def _shares_of_cpu(request: RunRequest, count: int) -> list[Machine]:
    this_machine(replace(request, device="cpu"))
    machines = []
    for number, share in enumerate(core_shares(count)):
        if request.threads is not None and request.threads > share.cores:
            raise FailedError(
                f"--threads {request.threads} does not fit: each of {count} shares of the CPU has "
                f"{share.cores}"
            )
        threads = request.threads or min(default_threads(), share.cores)
        machines.append(Machine("cpu", threads, f"cpu:{number}", share.cpus))
    return machines


def default_threads() -> int:
    """What ``OMP_NUM_THREADS`` says, else the physical cores that this process may use: a second
    hyper-thread of a core slows dense arithmetic down."""
    usable = usable_cores()
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable))


def check_device_name(device: str) -> None:
    """Raise ``UsageError`` unless ``device`` is ``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    kind, colon, index = device.partition(":")
    named = kind in ("auto", "cpu", "cuda") and not colon
    if not named and not (kind == "cuda" and index.isdigit()):
        raise unknown_name("device", device, ["auto", "cpu", "cuda"])


def _check_devices(request: RunRequest) -> None:
    """Raise ``UsageError`` unless ``request.devices`` are devices of one kind, each named once."""
    names = request.devices
    if names is None:
        return
    if request.device != "auto":
        raise UsageError("--device and --devices exclude each other; give one of them")
    for name in names:
        kind, _, index = name.partition(":")
        if kind not in ("cpu", "cuda") or not index.isdecimal() or str(int(index)) != index:
            raise UsageError(f"--devices takes names such as cuda:0 and cpu:0, not {name!r}")
    if not names:
        raise UsageError("--devices names no device; write cuda:0,cuda:1")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"--devices names {twice} twice; contests that are timed never share one")
    kinds = {name.partition(":")[0] for name in names}
    if len(kinds) > 1:
        raise UsageError("--devices takes devices of one kind: cuda:N or cpu:N, not both")
    shares = [f"cpu:{number}" for number in range(len(names))]
    if kinds == {"cpu"} and sorted(names) != sorted(shares):
        raise UsageError(
            f"{len(names)} equal shares of the CPU are named {','.join(shares)}, "
            f"not {','.join(names)}"
        )


def resolve_device(device: str) -> str:
    """``auto`` becomes ``cuda`` where there is a driver and a usable GPU, else ``cpu``.

    Raises ``UsageError`` for a name that is no device; ``FailedError`` where a device that is named
    is not here.
    """
    check_device_name(device)
    if device == "cpu" or (device == "auto" and not _has_driver()):
        return "cpu"
    # Only a machine with a driver, or a user who names a GPU, pays for this import.
    import torch

    index = device.partition(":")[2]
    if torch.cuda.is_available() and (not index or int(index) < torch.cuda.device_count()):
        return "cuda" if device == "auto" else device
    if device == "auto":
        return "cpu"
    raise FailedError(
        f"device {device} is not available: torch {torch.__version__} sees "
        f"{torch.cuda.device_count()} CUDA devices"
    )


def check_writable(folder: str, what: str = "results folder", option: str = "--out") -> None:
    """Raise ``FailedError`` unless a file can be written in ``folder``, which is made if missing.

    ``what`` it is and the ``option`` that names another go into the message.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\n")
    except OSError as error:
        raise FailedError(
            f"the {what} {folder} cannot be written: {error.strerror}; name another with {option}"
        ) from error


@contextlib.contextmanager
def with_threads(count: int) -> Iterator[None]:
    """Inside the block torch computes with ``count`` threads, afterwards with as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _has_driver() -> bool:
    return shutil.which("nvidia-smi") is not None or Path("/dev/nvidiactl").exists()


T = TypeVar("T")
_MAX_SEED = 2**31 - 1
_MAX_EXTENSION = 1000
_MAX_THREADS = 1024
_MAX_WORKERS = 100_000
_MAX_DEVICES = 64


@dataclass(frozen=True)
class Contest:
    """The arms of one pair with one seed: trained in turn by slices, timed in alternation."""

    pair: str
    seed: int
    budget: Budget
    dataset: str
    rungs: tuple[Budget, ...]
    """The smaller budgets that are measured on the way."""
    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class RunPlan:
    """All contests of a request, in the order they are run."""

    request: RunRequest
    contests: tuple[Contest, ...]
    machines: tuple[Machine, ...] = ()
    """Where they run, one contest a device at a time, once an executor has resolved it; until then
    the jobs say what was asked."""
    side_by_side: int = 1
    """How many contests a device has at once. Only runs whose budget is not in seconds may share
    one."""

    @property
    def machine(self) -> Machine | None:
        """The first device and its threads; the others are of the same kind."""
        return self.machines[0] if self.machines else None

    @property
    def jobs(self) -> list[Job]:
        """Every job, in order."""
        return [job for contest in self.contests for job in contest.jobs]


def make_plan(request: RunRequest, now: datetime | None = None) -> RunPlan:
    """The contests that ``request`` means; ``now`` is the time in every run's id.

    Nothing of a machine is in the plan yet: the executor's ``resolve`` fills in device, threads,
    kernel backend and where the state is kept.

    Raises ``UsageError`` for unknown names, budgets that cannot be read and numbers that make no
    sense.
    """
    _check(request)
    now = now or datetime.now(UTC)
    pairs = [PAIRS.get(name) for name in unique(request.pairs or (QUICK_START_PAIR,))]
    if request.kernels is not None:
        KERNEL_BACKENDS.get(request.kernels)
    seeds = unique(request.chosen_seeds)
    contests = [_contest(pair, seed, request, now) for pair in pairs for seed in seeds]
    return RunPlan(request, tuple(contests))


def contest_name(now: datetime) -> str:
    """A name for a contest that begins ``now``, unlike that of any other."""
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def utc(moment: datetime) -> str:
    """``moment``, which is in UTC, as records say it."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def extension(job: Job, factor: float) -> Job:
    """The job that takes the run of ``job`` on, from its last checkpoint, to ``factor`` times its
    budget."""
    base = Budget.parse(job.budget)
    longer = base.times(factor).text
    return msgspec.structs.replace(
        job,
        request=job.request.resuming(),
        budget=longer,
        extends=base.text,
        run_id=f"{job.run_id}-extended-{longer}",
    )


def unique(values: Iterable[T]) -> list[T]:
    """``values`` without repetitions, in order."""
    return list(dict.fromkeys(values))


def _check(request: RunRequest) -> None:
    """Raise ``UsageError`` for what no pair and no machine could make sense of."""
    request.check_choices()
    seeds = request.chosen_seeds
    if not seeds:
        raise UsageError("no seeds: give at least one, such as --seeds 0")
    for seed in seeds:
        if not 0 <= seed <= _MAX_SEED:
            raise UsageError(f"a seed must be between 0 and {_MAX_SEED}, not {seed}")
    if request.extend is not None and not 1 < request.extend <= _MAX_EXTENSION:
        raise UsageError(
            f"--extend must be a factor above 1 and at most {_MAX_EXTENSION}, "
            f"not {request.extend:g}"
        )
    if request.rungs is not None and not 0 <= request.rungs <= MOST_RUNGS:
        raise UsageError(f"--rungs must be between 0 and {MOST_RUNGS}, not {request.rungs}")
    if request.threads is not None and not 1 <= request.threads <= _MAX_THREADS:
        raise UsageError(f"--threads must be between 1 and {_MAX_THREADS}, not {request.threads}")
    if request.workers is not None and not 1 <= request.workers <= _MAX_WORKERS:
        raise UsageError(f"--workers must be between 1 and {_MAX_WORKERS}, not {request.workers}")
    check_device_name(request.device)
    _check_devices(request)
    _check_devices_per_arm(request)


def _check_devices_per_arm(request: RunRequest) -> None:
    count, names = request.devices_per_arm, request.devices
    if not 1 <= count <= _MAX_DEVICES:
        raise UsageError(f"--devices-per-arm must be between 1 and {_MAX_DEVICES}, not {count}")
    if names is not None and len(names) % count:
        raise UsageError(
            f"--devices names {counted(len(names), 'device')}, which cannot be shared "
            f"among arms of {count} each (--devices-per-arm)"
        )
    if count > 1 and ":" in request.device:
        raise UsageError(
            f"--device {request.device} is one device; with --devices-per-arm {count} name as many "
            "by --devices, or ask for --device cuda"
        )


def _in_precision(arm: ArmSpec, request: RunRequest) -> dict[str, Any]:
    """The fields of a job of ``arm`` that the precision asked for changes, if it is another than
    the arm's own."""
    if request.precision in (None, arm.presets[request.preset].recipe.precision):
        return {}
    chosen = {PRECISION: str(request.precision)}
    return {"recipe": chosen, "labels": chosen}


def _check_variant(task: TaskSpec, request: RunRequest) -> None:
    """Raise ``UsageError`` for an option that the ``task`` has not; of a plug-in's task that does
    not declare them here its class says so, when it is loaded."""
    for name in request.variant if task.fields else ():
        if name not in task.options:
            raise UsageError(
                f"--{name} is no option of {task.name}; leave it out, or leave its pairs out"
            )


def _contest(pair: PairSpec, seed: int, request: RunRequest, now: datetime) -> Contest:
    _check_variant(TASKS.get(pair.task), request)
    if request.preset not in pair.presets:
        raise unknown_name(f"preset of {pair.key}", request.preset, pair.presets)
    preset = pair.presets[request.preset].on(chosen_dataset(pair, request))
    budget = Budget.parse(request.budget if request.budget is not None else preset.budget)
    arms = [pair.arm(arm) for arm in unique(request.arms)] or list(pair.contestants)
    kernels = None if request.kernels == DEFAULT_KERNELS else request.kernels
    if kernels is not None:
        device = request.device if request.devices is None else request.devices[0]
        check_kernels(kernels, pair, arms, request.forces, device)
    for arm in arms:
        if request.preset not in arm.presets:
            raise unknown_name(f"preset of arm {arm.name!r}", request.preset, arm.presets)
        arm.check_options(request.variant)
    if request.extend is not None:
        budget.times(request.extend)
        if len(arms) < 2:
            raise UsageError(
                f"--extend prolongs the arm of {pair.key} that is behind, so it needs two arms"
            )
    options = [
        *request.variant.values(),
        *([] if request.dataset is None else [request.dataset]),
        *([] if request.precision is None else [request.precision]),
        *([] if kernels is None else [kernels]),
    ]
    contest = contest_name(now)
    # Two runs of one second, in two places, have two names.
    run_id = [request.preset, budget.text, f"seed{seed}", *options, contest]
    jobs = [
        Job(
            request=request,
            pair=pair.key,
            contest=contest,
            arm=arm.name,
            seed=seed,
            budget=budget.text,
            run_id="-".join(run_id),
            created=utc(now),
            command=request.command(recorded=True),
            variant=request.variant,
            **_in_precision(arm, request),
        )
        for arm in arms
    ]
    rungs = preset.rungs if request.rungs is None else request.rungs
    smaller = tuple(Budget(budget.kind, limit) for limit in rung_budgets(budget, rungs))
    return Contest(pair.key, seed, budget, preset.dataset, smaller, tuple(jobs))
