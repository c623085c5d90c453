"""The clock of kernels, a CPU's own and device events on a GPU, and what their times are held
against: how fast memory is copied, and how large the cache is."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from equivbench.errors import FailedError

_CPU_CACHE = 32 * 2**20
"""Assumed where the system does not tell; large for a desktop."""
_LARGEST = 256 * 2**20
"""Servers share larger caches among many cores; passing this much is enough and keeps memory in
bounds."""
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "": 1}


class Timer:
    """The clock of a device: a CPU's monotonic one; on a GPU events on the current stream, after
    all else on the device has ended."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def seconds(self, work: Callable[[], object]) -> float:
        """Run ``work`` and give the seconds until its results are there; gaps in which a GPU waits
        for the host count."""
        if self._device.type != "cuda":
            start = time.perf_counter()
            work()
            return time.perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        stream = torch.cuda.current_stream(self._device)
        torch.cuda.synchronize(self._device)
        begin.record(stream)
        work()
        end.record(stream)
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    def reduce(self, samples: Sequence[float]) -> float:
        """One number for a round's samples, of which there is at least one.

        The least on a CPU, where noise only ever adds time. A GPU's clock moves both ways, so the
        least is an outlier there: the sample below which a tenth of them lie.
        """
        return sorted(samples)[len(samples) // 10 if self._device.type == "cuda" else 0]


def cache_bytes(
    device: torch.device, folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")
) -> int:
    """Bytes of the last cache before memory, at most 256 MiB. ``folder`` is where Linux tells it
    for CPUs."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    sizes = []
    for file in folder.glob("index*/size"):
        found = re.fullmatch(r"(\d+)([KMG]?)\s*", file.read_text())
        if found:
            sizes.append(int(found[1]) * _UNITS[found[2]])
    return min(max(sizes, default=_CPU_CACHE), _LARGEST)


def copy_bandwidth(device: torch.device, *, clock: Timer | None = None) -> float:
    """Bytes a second, read and written, of a copy much larger than the cache, at torch's number of
    threads: the best of five.

    Raises ``FailedError`` where the clock does not move.
    """
    clock = clock or Timer(device)
    numbers = max(64 * 2**20, 4 * cache_bytes(device)) // 4
    source = torch.ones(numbers, device=device)
    target = torch.zeros_like(source)
    # The first writes map the memory.
    target.copy_(source)
    seconds = min(clock.seconds(lambda: target.copy_(source)) for _ in range(5))
    if seconds <= 0.0:
        raise FailedError(
            f"a copy of {4 * numbers} bytes took no time by the clock of {device};"
            " its bandwidth is not known"
        )
    return 2 * 4 * numbers / seconds
