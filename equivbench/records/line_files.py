"""Files of one JSON object a line that may lie beside run records, and what makes a line of each
right: kernel samples, pretrained networks, and what is declared elsewhere. Imports no torch."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import msgspec

from equivbench.errors import FailedError
from equivbench.records.files import alone_with, read_bounded, shown, write_lines
from equivbench.records.peaks import beyond, peak_of, width_of
from equivbench.records.plausibility import possible_date
from equivbench.records.pretrained import (
    PRETRAINED_RULES,
    PRETRAINED_SCHEMA_VERSION,
    PretrainedMeasurement,
)
from equivbench.records.roofline import (
    CEILING_SLACK,
    ROUNDING,
    Roofline,
    beyond_peak,
    roofline_problems,
)
from equivbench.records.rules import Rule, broken_rules
from equivbench.records.schema import Environment, Git
from equivbench.specs import Mode


@runtime_checkable
class Line(Protocol):
    """What the struct of every line has."""

    schema_version: int
    created: str
    environment: Environment

    @property
    def identity(self) -> tuple[str, ...]:
        """What it is of, and where it was made: two with the same identity are repetitions, which
        replace nothing."""


L = TypeVar("L", bound=Line)


@dataclass(frozen=True)
class BackingFile:
    """A further file that a line comes from, of a kind whose lines have one each."""

    place: Callable[[Any], PurePosixPath]
    """Where that of a line that keeps its rules lies, from the folder of the line's own file."""
    problems: Callable[[Any, bytes], Iterable[str]]
    """A sentence for each way in which the line does not follow from the file's content."""


@dataclass(frozen=True)
class LineFile(Generic[L]):
    """One kind of file, ``results/<machine-key>/<name>``, with a line for each measurement."""

    name: str
    """File name, such as ``gradients.jsonl``."""
    kind: type[L]
    """The struct of a line."""
    what: str
    """What messages call a line, such as ``gradient analysis``."""
    schema_version: int
    rules: tuple[Rule[Any], ...]
    """What an honest line keeps, beyond the version and the date, which every kind is held to."""
    backing: BackingFile | None = None
    older: tuple[int, ...] = ()
    """Versions of before whose lines still hold, by rules of their own."""

    @property
    def versions(self) -> tuple[int, ...]:
        """All schema versions that are read."""
        return (*self.older, self.schema_version)

    def read(self, path: Path) -> list[L]:
        """The lines of ``path``; raises ``FailedError`` naming file and line where it holds none
        or anything else."""
        found = []
        for number, line in enumerate(read_bounded(path).splitlines(), 1):
            if not line.strip():
                continue
            try:
                found.append(msgspec.json.decode(line, type=self.kind))
            except (msgspec.DecodeError, ValueError, RecursionError) as error:
                raise FailedError(
                    f"{shown(path)}, line {number}, is not a {self.what}: {shown(error)}; "
                    "measure again"
                ) from error
        if not found:
            raise FailedError(f"{shown(path)} is empty: it holds no {self.what}s; measure again")
        return found

    def merge(self, lines: Iterable[L], path: Path) -> Path:
        """Write ``lines`` into ``path``, behind what it holds and what others add at the same time;
        nothing that was measured is replaced. Raises ``FailedError`` where it holds anything else
        or the disk refuses."""
        with alone_with(path):
            old = self.read(path) if path.exists() else []
            return write_lines([*old, *(one for one in lines if one not in old)], path)

    def keep(self, lines: Iterable[L], results: Path) -> list[Path]:
        """Merge ``lines`` into the files of their machines below the folder ``results``; returns
        these files."""
        machines: dict[str, list[L]] = {}
        for line in lines:
            machines.setdefault(line.environment.machine_key, []).append(line)
        return [
            self.merge(found, results / machine / self.name) for machine, found in machines.items()
        ]

    def problems_of(self, line: L) -> list[str]:
        """Why ``line`` cannot be right, one sentence each; empty for a line that can."""
        return broken_rules(line, (self._version, possible_date, *self.rules))

    def unfounded(self, line: L, folder: Path) -> Iterator[str]:
        """Why ``line``, which keeps its rules, does not follow from its backing file; ``folder`` is
        that of its file."""
        if self.backing is None:
            return
        try:
            data = read_bounded(folder / self.backing.place(line), follow=False)
        except FailedError as error:
            yield str(error)
            return
        yield from self.backing.problems(line, data)

    def _version(self, line: L) -> Iterator[str]:
        if line.schema_version not in self.versions:
            known = " and ".join(map(str, self.versions))
            yield f"schema version {line.schema_version}, this equivbench reads version {known}"


KERNEL_SCHEMA_VERSION = 2
_COPY_ALONE = 1
"""The schema version whose samples are held against the bandwidth of a large copy alone."""
LARGEST_ERROR = {"64": 1e-11, "32": 1e-4, "16": 1e-1}
"""By bits: what a backend may be off the reference at most and still be timed
(:mod:`equivbench.kernels.checking`)."""


class KernelSamples(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What was timed of one case on one backend.

    A mode is cumulative: ``backward`` is the forward pass and the gradients by every differentiable
    input, ``double_backward`` these and the gradients of a random combination of them. ``rounds``
    are seconds a call, the least (CPU) or 10th percentile (GPU) of each round; ``errors`` are
    relative to the float64 reference, in the same process.
    """

    schema_version: int = KERNEL_SCHEMA_VERSION
    created: str
    """UTC, ISO 8601."""
    command: str
    case: str
    mode: Mode
    backend: str
    method: str
    dtype: str
    rounds: list[float]
    compile_seconds: float
    errors: dict[str, float]
    """Largest relative error of ``output``, of each gradient (``gradient x``) and second gradient
    (``second x``), and of ``tangent``, the derivative of forward mode, where the kernel has one."""
    bytes_fused: float
    """Bytes that any implementation must move; ``bytes_unfused`` those of one operation after the
    other."""
    bytes_unfused: float
    operations: float
    """Useful floating-point operations."""
    bandwidth: float
    """Bytes a second, read and written, of a copy larger than the caches, measured on this device
    in this process."""
    fraction_of_floor: float | None = None
    """Of schema version 1 alone: bytes_fused / bandwidth over the least round, wherever the bytes
    lay and whatever was computed. It was more than 1 where a case lay in a cache."""
    roofline: Roofline | None = None
    """From schema version 2 on: what the device allows, and how near the least round is to it."""
    allocator: dict[str, str] | None = None
    """From schema version 2 on: what the process told the C library's allocator as it began
    (``MALLOC_...``), for all backends alike; empty where nothing."""
    graph_rounds: list[float] = []
    """Seconds a call, the calls replayed from a CUDA graph, so that no Python stands between the
    launches; empty on a CPU, and where ``graph_reason`` says why a GPU has none."""
    graph_reason: str | None = None
    device_state: dict[str, float | str] = {}
    """GPU clocks, temperature and throttle reasons before and after."""
    environment: Environment
    git: Git

    @property
    def key(self) -> tuple[str, str, str]:
        """(case, mode, backend): what a later measurement of the same thing shares."""
        return self.case, self.mode, self.backend

    @property
    def identity(self) -> tuple[str, ...]:
        """What the sample is of, and where."""
        return (*self.key, self.dtype, self.environment.machine_key)

    @property
    def code(self) -> tuple[object, ...]:
        """What tells the code that was timed from others, libraries and driver included; of a tree
        with changes, or of none, each time is another."""
        own = self.git.version
        told = own if own is not None and not self.git.dirty else self.created
        made_of = self.environment
        return told, made_of.python, sorted(made_of.packages.items()), made_of.driver


def of_newest_code(samples: Iterable[KernelSamples]) -> list[list[KernelSamples]]:
    """The samples of each thing that was timed, in order of time, those of the code that was timed
    last; the first of them counts, of those with the most rounds (a quick look has few), the others
    are repetitions of it."""
    alike: dict[tuple[str, ...], list[KernelSamples]] = {}
    for sample in sorted(samples, key=lambda each: each.created):
        alike.setdefault(sample.identity, []).append(sample)
    newest = ([each for each in own if each.code == own[-1].code] for own in alike.values())
    return [sorted(own, key=lambda each: -len(each.rounds)) for own in newest]


def _not_positive(sample: KernelSamples) -> Iterator[str]:
    """Seconds, bytes and operations are above zero."""
    if not sample.rounds or min(*sample.rounds, *sample.graph_rounds, math.inf) <= 0:
        yield "rounds must be seconds above zero, one at least; so must graph_rounds"
        return
    for name in ("bytes_fused", "bytes_unfused", "bandwidth"):
        if getattr(sample, name) <= 0:
            yield f"{name} is {getattr(sample, name):g}"
    for name in ("operations", "compile_seconds"):
        if getattr(sample, name) < 0:
            yield f"{name} is {getattr(sample, name):g}"


def _floor(sample: KernelSamples) -> Iterator[str]:
    """How near the device's limits it is follows from bytes, operations, rates and time."""
    if any(_not_positive(sample)):
        return
    if sample.schema_version == _COPY_ALONE:
        yield from _copy_alone(sample)
    elif (
        sample.roofline is None or sample.allocator is None or sample.fraction_of_floor is not None
    ):
        yield (
            f"a sample of schema version {sample.schema_version} has a roofline and the setting of "
            "the allocator, and no fraction_of_floor"
        )
    else:
        yield from roofline_problems(
            sample.roofline,
            moved=sample.bytes_fused,
            operations=sample.operations,
            seconds=min(sample.rounds),
        )
    if sample.bytes_unfused < sample.bytes_fused * (1 - ROUNDING):
        yield (
            f"bytes_unfused {sample.bytes_unfused:g} are fewer than "
            f"bytes_fused {sample.bytes_fused:g}"
        )


def _copy_alone(sample: KernelSamples) -> Iterator[str]:
    if sample.fraction_of_floor is None or sample.roofline is not None:
        yield "a sample of schema version 1 has fraction_of_floor and no roofline"
        return
    fraction = sample.bytes_fused / sample.bandwidth / min(sample.rounds)
    if not math.isclose(fraction, sample.fraction_of_floor, rel_tol=ROUNDING):
        yield (
            f"fraction_of_floor is {sample.fraction_of_floor:g}, "
            f"bytes, bandwidth and rounds make it {fraction:g}"
        )


def _errors(sample: KernelSamples) -> Iterator[str]:
    """A kernel is timed only if it agrees with its reference."""
    most = LARGEST_ERROR[width_of(sample.dtype)]
    for name, error in sample.errors.items():
        if not 0 <= error <= most:
            yield (
                f"the error of {name!r} is {error:g}, outside [0, {most:g}]: "
                "such a kernel is not timed"
            )
    if not sample.errors:
        yield "errors is empty: a kernel is timed only after it was checked"


def _peak(sample: KernelSamples) -> Iterator[str]:
    """No faster than the device's arithmetic, memory and caches."""
    where = sample.environment
    peak = peak_of(where.device, where.cpu, where.threads)
    if peak is None or any(_not_positive(sample)):
        return
    device = f"{where.device!r} with {where.threads} threads"
    for clause in beyond(
        peak,
        width_of(sample.dtype),
        operations=sample.operations,
        moved=sample.bytes_fused,
        seconds=min(*sample.rounds, *sample.graph_rounds, math.inf),
    ):
        yield f"on {device}, {clause}"
    if sample.roofline is not None:
        for clause in beyond_peak(sample.roofline, peak, width_of(sample.dtype)):
            yield f"on {device}, {clause}"
    if sample.bandwidth > CEILING_SLACK * peak.bandwidth:
        yield (
            f"bandwidth {sample.bandwidth:.3g} B/s is more than the {peak.bandwidth:.3g} "
            f"of {where.device!r}"
        )


KERNEL_FILE = LineFile(
    "kernels.jsonl",
    KernelSamples,
    "kernel sample",
    KERNEL_SCHEMA_VERSION,
    (_not_positive, _floor, _errors, _peak),
    older=(_COPY_ALONE,),
)
PRETRAINED_FILE = LineFile(
    "pretrained.jsonl",
    PretrainedMeasurement,
    "measurement of a pretrained network",
    PRETRAINED_SCHEMA_VERSION,
    PRETRAINED_RULES,
)


@functools.cache
def line_files() -> Mapping[str, LineFile[Any]]:
    """Every kind of file by its name: kernel samples, pretrained networks, and what is declared
    elsewhere.

    The ladder and the studies declare their files in the entry-point group
    ``equivbench.result_files``. Only those of equivbench itself are loaded: validating someone's
    records never runs code of a plug-in.
    """
    files: list[LineFile[Any]] = [KERNEL_FILE, PRETRAINED_FILE]
    # Without metadata equivbench runs from a folder that was never installed.
    with contextlib.suppress(PackageNotFoundError):
        declared = distribution("equivbench").entry_points.select(group="equivbench.result_files")
        files += [point.load() for point in declared]
    return {file.name: file for file in files}
