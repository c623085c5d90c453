"""How fast memory can be copied on this device, and how large its cache is: what times are held
against."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from equivbench.errors import FailedError
from equivbench.kernels.timers import Timer, timer

_CPU_CACHE = 32 * 2**20
"""Assumed where the system does not tell; large for a desktop."""
_LARGEST = 256 * 2**20
"""Servers share larger caches among many cores; passing this much is enough and keeps memory in
bounds."""
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "": 1}


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
    clock = clock or timer(device)
    numbers = max(64 * 2**20, 4 * cache_bytes(device)) // 4
    source = torch.ones(numbers, device=device)
    target = torch.zeros_like(source)
    # The first writes map the memory.
    target.copy_(source)
    seconds = min(clock.seconds(lambda: _copy(source, target)) for _ in range(5))
    if seconds <= 0.0:
        raise FailedError(
            f"a copy of {4 * numbers} bytes took no time by the clock of {device}; its bandwidth is not known"
        )
    return 2 * 4 * numbers / seconds


def _copy(source: torch.Tensor, target: torch.Tensor) -> None:
    target.copy_(source)
