"""Backends timed against each other: each case and mode in rounds that alternate over the
backends."""

from __future__ import annotations

import datetime
import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Literal

import torch

from equivbench.environment import (
    allocator_settings,
    environment,
    git_state,
    package_versions,
)
from equivbench.errors import EquivbenchError
from equivbench.gpu import nvml_reader
from equivbench.kernels.backend import UnsupportedError
from equivbench.kernels.ceilings import measure_ceilings
from equivbench.kernels.checking import WrongKernelError
from equivbench.kernels.measuring import AbsentError, Prepared, prepare
from equivbench.kernels.operations import Case, costs
from equivbench.kernels.problem import Unseen, pose
from equivbench.kernels.roofline import InstrumentError, MeasuredRoof
from equivbench.kernels.timing import GpuState, gpu_state, summary
from equivbench.records.line_files import KernelSamples
from equivbench.records.schema import NotMeasured
from equivbench.registry import KERNEL_BACKENDS
from equivbench.specs import MODES, Mode

RefusalKind = Literal["absent", "unsupported", "wrong", "failed"]
_GRAPH_ROUNDS = 3


@dataclass(frozen=True)
class Refusal:
    """Why there are no times of a backend."""

    case: str
    mode: Mode
    backend: str
    kind: RefusalKind
    reason: str


@dataclass
class BackendComparison:
    """One case and mode on all backends."""

    case: Case
    mode: Mode
    samples: list[KernelSamples] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    interrupted: bool = False
    """Ctrl-C came between rounds; ``samples`` have those until then."""


@dataclass(frozen=True)
class BackendPlan:
    """How much is timed, and where."""

    rounds: int = 10
    seconds: float = 0.2
    """Of a round, at least."""
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0
    command: str = ""


def comparisons(
    cases: Sequence[Case],
    backends: Sequence[str],
    modes: Sequence[Mode],
    plan: BackendPlan,
    *,
    said: Callable[[str], None] = lambda text: None,
) -> Iterator[BackendComparison]:
    """Time ``cases`` on ``backends``; the rounds of a case and mode alternate over the backends.

    Parameters
    ----------
    cases, backends
        What is timed, and the names of the registered backends that are held against each other.
    modes
        Those that a case's networks do not need are left out.
    plan
        How much is timed, and where.
    said
        Told what happens now.

    Yields
    ------
    BackendComparison
        One a case and mode, with the samples of the backends that are right and why there are none
        of the others. The last one may have been interrupted between rounds.

    Raises
    ------
    KeyboardInterrupt
        It came where there was nothing yet to keep of a comparison, or at its end, where backends
        are called on numbers that they have not seen: nothing is kept without that.
    """
    roof = MeasuredRoof(lambda: measure_ceilings(plan.device, plan.dtype))
    for case in cases:
        wanted = [mode for mode in MODES if mode in modes and MODES.index(mode) <= case.derivatives]
        options: Any = {"dtype": plan.dtype, "device": plan.device, "seed": plan.seed}
        posed = cache(partial(pose, case, (wanted or MODES)[-1], **options))
        for mode in wanted:
            result = BackendComparison(case, mode)
            prepared = []
            for name in backends:
                said(f"{case.name} {mode}: {name}")
                try:
                    prepared.append(prepare(case, mode, name, **options, posed=posed))
                except EquivbenchError as error:
                    result.refusals.append(_refusal(case, mode, name, error))
            if prepared:
                said("how fast the device is at most")
                roof.ready()
            _race(prepared, plan, result, roof)
            yield result
            if result.interrupted:
                return
            del prepared
            gc.collect()
            # Compiled code counts against a limit in torch, and none of it is used again.
            torch.compiler.reset()


def order(number: int, round_number: int) -> list[int]:
    """In which order ``number`` sides are timed in a round: forwards, then backwards, so that a
    drift cancels (ABBA)."""
    return list(range(number))[:: 1 if round_number % 2 == 0 else -1]


def _race(
    prepared: Sequence[Prepared], plan: BackendPlan, result: BackendComparison, roof: MeasuredRoof
) -> None:
    """Fill ``result`` with the samples of ``prepared``; one that turns out wrong or fails is
    refused, the others go on."""
    read = nvml_reader(str(plan.device), gpu_state, "clocks") if plan.device.type == "cuda" else ""
    seconds: dict[Prepared, list[float]] = {one: [] for one in prepared}
    states: dict[Prepared, list[GpuState]] = {one: [] for one in prepared}
    try:
        for number in range(plan.rounds):
            for one in [prepared[place] for place in order(len(prepared), number)]:
                if one not in seconds:
                    continue
                before = None if isinstance(read, str) else read()
                try:
                    seconds[one].append(one.round(plan.seconds))
                except EquivbenchError as error:
                    del seconds[one]
                    result.refusals.append(_refusal(result.case, result.mode, one.backend, error))
                    continue
                if before is not None and not isinstance(read, str):
                    states[one] += [before, read()]
    except KeyboardInterrupt:
        result.interrupted = True
        if not any(seconds.values()):
            raise
    timed = {one: rounds for one, rounds in seconds.items() if rounds}
    _examine(timed, result)
    for one, rounds in timed.items():
        state: dict[str, float | str] = (
            {"unknown": read} if read and isinstance(read, str) else summary(states[one])
        )
        try:
            sample = _samples(one, rounds, state, plan, roof)
        except InstrumentError as error:
            result.refusals.append(_refusal(result.case, result.mode, one.backend, error))
            continue
        if plan.device.type == "cuda":
            _replay(one, plan, sample)
        result.samples.append(sample)


def _examine(seconds: dict[Prepared, list[float]], result: BackendComparison) -> None:
    """Refuse who is wrong on numbers that no call has seen. Their answers are computed once, when
    all have been called."""
    if not seconds:
        return
    unseen = Unseen(next(iter(seconds)).problem, result.mode)
    acts: tuple[Callable[[Prepared], None], ...] = (lambda one: one.take(unseen), Prepared.mark)
    for act in acts:
        for one in list(seconds):
            try:
                act(one)
            except EquivbenchError as error:
                del seconds[one]
                result.refusals.append(_refusal(result.case, result.mode, one.backend, error))


def _replay(prepared: Prepared, plan: BackendPlan, sample: KernelSamples) -> None:
    """Add to ``sample`` what the calls take in a CUDA graph. Last of all: a kernel that cannot be
    recorded may leave its device in any state."""
    replayed = prepared.replayed(min(_GRAPH_ROUNDS, plan.rounds), plan.seconds)
    if isinstance(replayed, NotMeasured):
        sample.graph_reason = replayed.reason
    else:
        sample.graph_rounds = replayed


def _samples(
    prepared: Prepared,
    rounds: list[float],
    state: dict[str, float | str],
    plan: BackendPlan,
    roof: MeasuredRoof,
) -> KernelSamples:
    """Raises ``InstrumentError`` where the rounds are faster than the device was seen to be."""
    where = environment(str(plan.device), torch.get_num_threads())
    # Modules, not distributions, but most share their name up to the dash.
    needs = tuple(
        module.partition(".")[0].replace("_", "-")
        for module in KERNEL_BACKENDS.get(prepared.backend).needs
    )
    where.packages |= package_versions(
        tuple(name for need in needs for name in (need, f"{need}-torch"))
    )
    cost = costs(prepared.case, prepared.mode, plan.dtype.itemsize)
    try:
        near = roof.over(cost, prepared.footprint, min(rounds))
    except InstrumentError as error:
        named = f"{prepared.backend} on {prepared.case.name} ({prepared.mode})"
        raise InstrumentError(f"{named}: {error}") from None
    return KernelSamples(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=plan.command,
        case=prepared.case.name,
        mode=prepared.mode,
        backend=prepared.backend,
        method=prepared.method,
        dtype=str(plan.dtype).removeprefix("torch."),
        rounds=rounds,
        compile_seconds=prepared.compile_seconds,
        errors=prepared.errors,
        bytes_fused=float(cost.bytes_fused),
        bytes_unfused=float(cost.bytes_unfused),
        operations=float(cost.operations),
        bandwidth=roof.ceilings.copy,
        roofline=near,
        allocator=allocator_settings(),
        device_state=state,
        environment=where,
        git=git_state(),
    )


_KINDS: tuple[tuple[type[EquivbenchError], RefusalKind], ...] = (
    (AbsentError, "absent"),
    (UnsupportedError, "unsupported"),
    (WrongKernelError, "wrong"),
)


def _refusal(case: Case, mode: Mode, backend: str, error: EquivbenchError) -> Refusal:
    kind: RefusalKind = next((kind for known, kind in _KINDS if isinstance(error, known)), "failed")
    return Refusal(case.name, mode, backend, kind, str(error))
