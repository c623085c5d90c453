"""Clocks for kernels: a CPU's own, and device events on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import torch


class Timer(Protocol):
    """Measures a piece of work and reduces the samples of a round."""

    def seconds(self, work: Callable[[], None]) -> float:
        """Run ``work`` and give the seconds until its results are there."""
        ...

    def reduce(self, samples: Sequence[float]) -> float:
        """One number for a round's samples, of which there is at least one."""
        ...


class CpuTimer:
    """The monotonic clock. A round is its least sample: on a CPU, noise only ever adds time."""

    def seconds(self, work: Callable[[], None]) -> float:
        """Seconds that ``work`` takes."""
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    def reduce(self, samples: Sequence[float]) -> float:
        """The least."""
        return min(samples)


class CudaTimer:
    """Events on the current stream, after all else on the device has ended. A round is the 10th
    percentile of its samples.

    A GPU's clock moves both ways, so the least sample is an outlier there.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def seconds(self, work: Callable[[], None]) -> float:
        """Seconds between two events around ``work``; gaps in which the device waits for the host
        count."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        stream = torch.cuda.current_stream(self._device)
        torch.cuda.synchronize(self._device)
        begin.record(stream)
        work()
        end.record(stream)
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    def reduce(self, samples: Sequence[float]) -> float:
        """The 10th percentile: the sample below which a tenth of them lie."""
        return sorted(samples)[len(samples) // 10]


def timer(device: torch.device) -> Timer:
    """The clock of ``device``."""
    return CudaTimer(device) if device.type == "cuda" else CpuTimer()
