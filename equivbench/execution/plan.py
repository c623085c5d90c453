"""From a request to the contests it means, and what the machine that runs them gives: device,
threads, folders that can be written."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec
import psutil

from equivbench.budget import Budget
from equivbench.environment import usable_cores
from equivbench.errors import FailedError, UsageError, unknown_name
from equivbench.kernels.backends import absent
from equivbench.registry import KERNEL_BACKENDS, MODELS, PAIRS, TASKS
from equivbench.request import DEFAULT_KERNELS, MOST_RUNGS, QUICK_START_PAIR, RunRequest
from equivbench.schedule import rung_budgets
from equivbench.specs import PairSpec
from equivbench.training.job import Job


@dataclass(frozen=True)
class Machine:
    """The device and the CPU threads that every arm of a plan computes with."""

    device: str
    """``cpu``, ``cuda`` or ``cuda:N``."""
    threads: int


def this_machine(request: RunRequest) -> Machine:
    """What ``request`` means on the machine that this process runs on.

    Raises ``FailedError`` where the device that was asked for, or the kernel backend, is not here.
    """
    device = resolve_device(request.device)
    if request.kernels is not None:
        reason = absent(KERNEL_BACKENDS.get(request.kernels), device)
        if reason is not None:
            raise FailedError(f"--kernels {request.kernels}: {reason}")
    return Machine(device, request.threads if request.threads is not None else default_threads())


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
    machine: Machine | None = None
    """Where they run, once an executor has resolved it; until then the jobs say what was asked."""
    side_by_side: int = 1
    """How many contests run at once. Only runs whose budget is not in seconds may share a
    machine."""

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
    check_device_name(request.device)


def _contest(pair: PairSpec, seed: int, request: RunRequest, now: datetime) -> Contest:
    TASKS.get(pair.task)
    if request.preset not in pair.presets:
        raise unknown_name(f"preset of {pair.key}", request.preset, pair.presets)
    preset = pair.presets[request.preset]
    budget = Budget.parse(request.budget if request.budget is not None else preset.budget)
    arms = [pair.arm(arm) for arm in unique(request.arms)] or list(pair.contestants)
    kernels = None if request.kernels == DEFAULT_KERNELS else request.kernels
    if kernels is not None and not any(MODELS.get(arm.model).kernels for arm in arms):
        raise UsageError(
            f"--kernels {kernels}: no chosen arm of {pair.key} takes its operations "
            "from a kernel backend; leave the option out or choose another pair"
        )
    for arm in arms:
        if request.preset not in arm.presets:
            raise unknown_name(f"preset of arm {arm.name!r}", request.preset, arm.presets)
    if request.extend is not None:
        budget.times(request.extend)
        if len(arms) < 2:
            raise UsageError(
                f"--extend prolongs the arm of {pair.key} that is behind, so it needs two arms"
            )
    options = [*request.variant.values(), *([] if kernels is None else [kernels])]
    run_id = [request.preset, budget.text, f"seed{seed}", *options, f"{now:%Y%m%dT%H%M%SZ}"]
    contest = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    jobs = [
        Job(
            request=request,
            pair=pair.key,
            contest=contest,
            arm=arm.name,
            seed=seed,
            budget=budget.text,
            run_id="-".join(run_id),
            created=f"{now:%Y-%m-%dT%H:%M:%SZ}",
            command=request.command(recorded=True),
            variant=request.variant,
        )
        for arm in arms
    ]
    rungs = preset.rungs if request.rungs is None else request.rungs
    smaller = tuple(Budget(budget.kind, limit) for limit in rung_budgets(budget, rungs))
    return Contest(pair.key, seed, budget, preset.dataset, smaller, tuple(jobs))
