"""Kernel samples on disk: one JSON line for each case, derivative and backend, with the minimum of
every round."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from equivbench.records.files import merge_lines, read_lines
from equivbench.records.line_files import LineFile
from equivbench.records.peaks import CACHE_FACTOR, peak_of, width_of
from equivbench.records.rule import Rule
from equivbench.records.schema import Environment, Git

KERNEL_SCHEMA_VERSION = 1
Mode = Literal["forward", "backward", "double_backward"]
MODES: tuple[Mode, ...] = ("forward", "backward", "double_backward")
LARGEST_ERROR = {"64": 1e-11, "32": 1e-4, "16": 1e-1}
"""By bits: what a backend may be off the reference at most and still be timed
(:mod:`equivbench.kernels.checking`)."""
ROUNDING = 1e-9
"""Relative: one division and one product in float64."""
COPY_SLACK = 1.1
"""A copy may be timed a little above the data sheet's bandwidth: boost clocks of memory, and
timers."""


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
    (``second x``)."""
    bytes_fused: float
    """Bytes that any implementation must move; ``bytes_unfused`` those of one operation after the
    other."""
    bytes_unfused: float
    operations: float
    """Useful floating-point operations."""
    bandwidth: float
    """Bytes a second of a copy, measured on this device in this process."""
    fraction_of_floor: float
    """bytes_fused / bandwidth over the least round: 1 is the fused bandwidth floor."""
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
        """What the sample is of, and where: of two with the same identity in one file the newer one
        counts."""
        return (*self.key, self.dtype, self.environment.machine_key)


def merge_samples(samples: Iterable[KernelSamples], path: Path) -> Path:
    """Write ``samples`` into ``path``, in place of those of the same things; what else the file
    holds stays.

    Raises ``FailedError`` where the file holds anything but samples or the disk refuses.
    """
    return merge_lines(samples, path, read_samples)


def read_samples(path: Path) -> list[KernelSamples]:
    """The samples in ``path``; raises ``FailedError`` naming file and line if there are none or one
    is not valid."""
    return read_lines(path, KernelSamples, "kernel sample")


def _not_positive(sample: KernelSamples) -> Iterator[str]:
    if not sample.rounds or min(sample.rounds) <= 0:
        yield "rounds must be seconds above zero, one at least"
        return
    for name in ("bytes_fused", "bytes_unfused", "bandwidth"):
        if getattr(sample, name) <= 0:
            yield f"{name} is {getattr(sample, name):g}"
    for name in ("operations", "compile_seconds"):
        if getattr(sample, name) < 0:
            yield f"{name} is {getattr(sample, name):g}"


def _floor(sample: KernelSamples) -> Iterator[str]:
    if any(_not_positive(sample)):
        return
    fraction = sample.bytes_fused / sample.bandwidth / min(sample.rounds)
    if not math.isclose(fraction, sample.fraction_of_floor, rel_tol=ROUNDING):
        yield (
            f"fraction_of_floor is {sample.fraction_of_floor:g}, "
            f"bytes, bandwidth and rounds make it {fraction:g}"
        )
    if sample.bytes_unfused < sample.bytes_fused * (1 - ROUNDING):
        yield (
            f"bytes_unfused {sample.bytes_unfused:g} are fewer than "
            f"bytes_fused {sample.bytes_fused:g}"
        )


def _errors(sample: KernelSamples) -> Iterator[str]:
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
    where = sample.environment
    peak = peak_of(where.device, where.cpu, where.threads)
    if peak is None or any(_not_positive(sample)):
        return
    least, width = min(sample.rounds), width_of(sample.dtype)
    operations, most = sample.operations / least, peak.operations[width]
    if operations > most:
        yield (
            f"{operations:.3g} operations a second are more than the {most:.3g} that "
            f"{where.device!r} with {where.threads} threads can do in {width} bits"
        )
    if sample.bandwidth > COPY_SLACK * peak.bandwidth:
        yield (
            f"bandwidth {sample.bandwidth:.3g} B/s is more than the {peak.bandwidth:.3g} "
            f"of {where.device!r}"
        )
    moved = sample.bytes_fused / least
    if moved > CACHE_FACTOR * peak.bandwidth:
        yield f"{moved:.3g} bytes a second are more than any cache of {where.device!r} gives"


KERNEL_RULES: tuple[Rule[KernelSamples], ...] = (
    Rule("seconds, bytes and operations are above zero", KernelSamples, _not_positive),
    Rule("the fraction of the floor follows from bytes, bandwidth and time", KernelSamples, _floor),
    Rule("a kernel is timed only if it agrees with its reference", KernelSamples, _errors),
    Rule("no faster than the device's arithmetic, memory and caches", KernelSamples, _peak),
)
KERNEL_FILE = LineFile(
    "kernels.jsonl", KernelSamples, "kernel sample", KERNEL_SCHEMA_VERSION, KERNEL_RULES
)
