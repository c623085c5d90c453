"""Kernel samples on disk: one JSON line for each case, derivative and backend, with the minimum of
every round."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from equivbench.records.files import merge_lines, read_lines
from equivbench.records.schema import Environment, Git

KERNEL_SCHEMA_VERSION = 1
Mode = Literal["forward", "backward", "double_backward"]
MODES: tuple[Mode, ...] = ("forward", "backward", "double_backward")


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
