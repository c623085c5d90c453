"""Memory: the most that training takes, and how it is told that there was too little. Imports torch
for a GPU only."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from equivbench.records.schema import NotMeasured

if TYPE_CHECKING:
    import torch

_TOO_LITTLE = re.compile(
    r"out of memory|can't allocate memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED"
)


class MemoryMeter:
    """The peak of ``device``'s allocator over the blocks in which the run trains: an evaluation
    has batches of its own, and its peak says nothing of training. A CPU counts none by block:
    there it is the peak of the whole process.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._peak = 0
        """Of the blocks so far."""

    @contextmanager
    def training(self) -> Iterator[None]:
        """Count the block."""
        if self._device.type != "cuda":
            yield
            return
        import torch

        torch.cuda.reset_peak_memory_stats(self._device)
        try:
            yield
        finally:
            self._peak = max(self._peak, int(torch.cuda.max_memory_allocated(self._device)))

    @property
    def peak(self) -> int | NotMeasured:
        """Bytes."""
        if self._device.type != "cuda":
            return peak_of_process()
        return self._peak or NotMeasured("no training step was made on the device")

    def restore(self, peak: int) -> None:
        """Go on from the ``peak`` of a checkpoint, 0 where none is known."""
        self._peak = peak

    @property
    def counted(self) -> int:
        """What a checkpoint keeps: the peak of the device's allocator, 0 where it counts none."""
        return self._peak


def peak_of_process() -> int | NotMeasured:
    """The peak bytes of this process so far."""
    try:
        import resource  # absent on Windows
    except ImportError:
        return NotMeasured("this operating system does not tell the peak memory of a process")
    # ru_maxrss counts bytes on macOS and kibibytes elsewhere.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error``, or what it came of, is that there was too little memory: torch, its
    compiler and whoever calls a model wrap what they meet in errors of their own."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, MemoryError):
            return True
        if isinstance(cause, RuntimeError) and _TOO_LITTLE.search(str(cause)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
