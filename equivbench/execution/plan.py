"""From what the user asked to a list of jobs, torch-free: which arms, seeds and budgets, and where
all of it is kept."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec
import psutil

from equivbench.budget import Budget
from equivbench.environment import usable_cores
from equivbench.errors import FailedError, UsageError, unknown_name
from equivbench.execution.state import identify
from equivbench.kernels.backends import absent
from equivbench.registry import KERNEL_BACKENDS, MODELS, PAIRS, TASKS
from equivbench.specs import PRESETS, ArmSpec, PairSpec
from equivbench.training.job import Job

T = TypeVar("T")
QUICK_START_PAIR = "forcefield/vector"
"""What is run where no pair is named."""
DEFAULT_KERNELS = "torch"
"""What a network's operations run on where nothing else is asked for."""
FORCES = ("direct", "conservative")
_MAX_SEED = 2**31 - 1
_MAX_EXTENSION = 1000


@dataclass(frozen=True)
class RunRequest:
    """What ``equivbench run`` was asked for; what is left None takes the pair's or the machine's
    default."""

    pairs: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    budget: str | None = None
    seeds: tuple[int, ...] = (0,)
    preset: str = "small"
    device: str = "auto"
    threads: int | None = None
    kernels: str | None = None
    forces: str | None = None
    extend: float | None = None
    out: str = "results"
    snapshots: bool = False
    resume: bool = False

    @property
    def command(self) -> str:
        """The command line that asks for the same, as it goes into hints on resuming."""
        words = ["equivbench", "run", *self.pairs]
        for arm in self.arms:
            words += ["--arm", arm]
        default = RunRequest()
        for option in ("budget", "preset", "device", "threads", "kernels", "forces", "out"):
            value = getattr(self, option)
            if value != getattr(default, option):
                words += [f"--{option}", str(value)]
        if self.seeds != default.seeds:
            words += ["--seeds", ",".join(map(str, self.seeds))]
        if self.extend is not None:
            words += ["--extend", f"{self.extend:g}"]
        words += [f"--{flag}" for flag in ("snapshots", "resume") if getattr(self, flag)]
        return shlex.join(words)

    @property
    def recorded(self) -> str:
        """The command line as records keep it: without the folder, which changes nothing and may
        name a user's paths."""
        return replace(self, out=RunRequest.out).command


@dataclass(frozen=True)
class Contest:
    """The arms of one pair with one seed: trained in turn by slices, timed in alternation."""

    pair: str
    seed: int
    budget: Budget
    dataset: str
    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class Plan:
    """All contests of a request, in the order they are held."""

    request: RunRequest
    contests: tuple[Contest, ...]
    device: str
    threads: int

    @property
    def jobs(self) -> list[Job]:
        """Every job, in order."""
        return [job for contest in self.contests for job in contest.jobs]


def make_plan(request: RunRequest, now: datetime | None = None) -> Plan:
    """Expand ``request``; raises :class:`UsageError` for unknown names, bad budgets and bad
    numbers."""
    if request.preset not in PRESETS:
        raise unknown_name("preset", request.preset, PRESETS)
    if not request.seeds:
        raise UsageError("no seeds: give at least one, such as --seeds 0")
    for seed in request.seeds:
        if not 0 <= seed <= _MAX_SEED:
            raise UsageError(f"a seed must be between 0 and {_MAX_SEED}, not {seed}")
    if request.extend is not None and not 1 < request.extend <= _MAX_EXTENSION:
        raise UsageError(
            f"--extend must be a factor above 1 and at most {_MAX_EXTENSION}, not {request.extend:g}"
        )
    if request.forces is not None and request.forces not in FORCES:
        raise unknown_name("kind of forces", request.forces, FORCES)
    if request.threads is not None and not 1 <= request.threads <= 1024:
        raise UsageError(f"--threads must be between 1 and 1024, not {request.threads}")
    threads = request.threads if request.threads is not None else default_threads()
    device = resolve_device(request.device)
    now = now or datetime.now(UTC)
    pairs = [PAIRS.get(name) for name in unique(request.pairs or (QUICK_START_PAIR,))]
    if request.kernels is not None:
        _check_kernels(request.kernels, pairs, request.arms, device)
    return Plan(
        request,
        tuple(
            _contest(pair, seed, request, device, threads, now)
            for pair in pairs
            for seed in unique(request.seeds)
        ),
        device,
        threads,
    )


def extension(job: Job, factor: float) -> Job:
    """The job that takes the run of ``job`` on, from its last checkpoint, to ``factor`` times its
    budget."""
    base = Budget.parse(job.budget)
    longer = base.times(factor).text
    run_id = f"{job.run_id}-extended-{longer}"
    return msgspec.structs.replace(
        job, budget=longer, extends=base.text, run_id=run_id, resume=True
    )


def default_threads() -> int:
    """Physical cores that this process may use: a second hyper-thread of a core slows dense
    arithmetic down."""
    usable = usable_cores()
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable))


def resolve_device(device: str) -> str:
    """``auto`` becomes ``cuda`` where there is a driver and a usable GPU, else ``cpu``; a named
    device must be there."""
    kind, _, index = device.partition(":")
    if device != "auto" and (
        kind not in ("cpu", "cuda")
        or (kind == "cpu" and index)
        or (":" in device and not index.isdigit())
    ):
        raise unknown_name("device", device, ["auto", "cpu", "cuda"])
    if device == "cpu" or (
        device == "auto"
        and shutil.which("nvidia-smi") is None
        and not Path("/dev/nvidiactl").exists()
    ):
        return "cpu"
    # Only a machine with a driver, or a user who names a GPU, pays for this import.
    import torch

    if torch.cuda.is_available() and (not index or int(index) < torch.cuda.device_count()):
        return "cuda" if device == "auto" else device
    if device == "auto":
        return "cpu"
    raise FailedError(
        f"device {device} is not available: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices"
    )


def unique(values: Iterable[T]) -> list[T]:
    """``values`` without repetitions, in order."""
    return list(dict.fromkeys(values))


def _check_kernels(
    name: str, pairs: Iterable[PairSpec], arms: tuple[str, ...], device: str
) -> None:
    reason = absent(KERNEL_BACKENDS.get(name), device)
    if reason is not None:
        raise FailedError(f"--kernels {name}: {reason}")
    for pair in pairs:
        chosen = [pair.arm(arm) for arm in arms] if arms else list(pair.contestants)
        if name != DEFAULT_KERNELS and not any(MODELS.get(arm.model).kernels for arm in chosen):
            raise UsageError(
                f"--kernels {name}: no chosen arm of {pair.task}/{pair.name} takes its operations from a kernel backend; "
                "leave the option out or choose another pair"
            )


def _contest(
    pair: PairSpec, seed: int, request: RunRequest, device: str, threads: int, now: datetime
) -> Contest:
    name = f"{pair.task}/{pair.name}"
    TASKS.get(pair.task)
    if request.preset not in pair.presets:
        raise unknown_name(f"preset of {name}", request.preset, pair.presets)
    preset = pair.presets[request.preset]
    budget = Budget.parse(request.budget if request.budget is not None else preset.budget)
    arms = (
        [pair.arm(arm) for arm in unique(request.arms)] if request.arms else list(pair.contestants)
    )
    if request.extend is not None:
        budget.times(request.extend)
        if len(arms) < 2:
            raise UsageError(
                f"--extend prolongs the arm of {name} that is behind, so it needs two arms"
            )
    # Direct forces are every model's own output: asking for them is asking for no option of the
    # task.
    variant = {"forces": request.forces} if request.forces not in (None, "direct") else {}
    kernels = None if request.kernels == DEFAULT_KERNELS else request.kernels
    options = [*variant.values(), *([] if kernels is None else [kernels])]
    run_id = "-".join(
        [request.preset, budget.text, f"seed{seed}", *options, f"{now:%Y%m%dT%H%M%SZ}"]
    )
    jobs = []
    for arm in arms:
        job = Job(
            pair=name,
            arm=arm.name,
            preset=request.preset,
            budget=budget.text,
            seed=seed,
            run_id=run_id,
            created=f"{now:%Y-%m-%dT%H:%M:%SZ}",
            command=request.recorded,
            out=request.out,
            state_dir="",
            device=device,
            threads=threads,
            variant={key: str(value) for key, value in variant.items()},
            kernels=kernels if MODELS.get(arm.model).kernels else None,
            snapshots=request.snapshots,
            resume=request.resume,
        )
        jobs.append(identify(job, _settings(arm, request.preset) | {"data": asdict(preset)}))
    return Contest(name, seed, budget, preset.dataset, tuple(jobs))


def _settings(arm: ArmSpec, preset: str) -> dict[str, object]:
    if preset not in arm.presets:
        raise unknown_name(f"preset of arm {arm.name!r}", preset, arm.presets)
    sized = arm.presets[preset]
    model = MODELS.get(arm.model)
    requires = dict(model.requires)
    return {
        "model": arm.model,
        "wrapper": arm.wrapper,
        "config": dict(sized.config),
        "recipe": asdict(sized.recipe),
        "requires": requires,
    }


def resume_command(request: RunRequest) -> str:
    """The command line that goes on with what ``request`` began."""
    return replace(request, resume=True).command
