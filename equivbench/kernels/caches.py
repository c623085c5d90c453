"""The caches between a device's arithmetic and its memory, as the system tells them."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch

_CPU_CACHE = 32 * 2**20
"""Assumed where the system does not tell; large for a desktop."""
_LARGEST = 256 * 2**20
"""Servers share larger caches among many cores; passing this much is enough and keeps memory in
bounds."""
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "": 1}
CPUS = Path("/sys/devices/system/cpu")
"""Where Linux tells the caches of each CPU."""


def cache_levels(device: torch.device, folder: Path = CPUS) -> dict[int, int]:
    """Bytes of each level of data caches that torch's threads can fill together on ``device``,
    nearest first; empty where the system does not tell.

    Of caches that cores do not share, so many threads fill as many. ``folder`` is where Linux tells
    those of CPUs.
    """
    if device.type == "cuda":
        return {2: int(torch.cuda.get_device_properties(device).L2_cache_size)}
    threads = torch.get_num_threads()
    return {level: sum(sizes[:threads]) for level, sizes in _caches_of_cpus(folder).items()}


def cache_bytes(device: torch.device, folder: Path = CPUS) -> int:
    """Bytes of the last cache before memory, at most 256 MiB; 32 MiB where the system does not
    tell."""
    return min(max(cache_levels(device, folder).values(), default=_CPU_CACHE), _LARGEST)


def level_of(size: float, levels: Mapping[int, int]) -> str | None:
    """Where ``size`` bytes stay that are passed through again and again: ``L2``, ``L3``, ...,
    ``memory``; None where the caches are not known."""
    if not levels:
        return None
    return next((f"L{level}" for level, most in levels.items() if size <= most), "memory")


@cache
def _caches_of_cpus(folder: Path) -> dict[int, list[int]]:
    """Bytes of each data cache of the CPUs that this process may use, by level, the largest
    first."""
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    found: dict[int, dict[str, int]] = defaultdict(dict)
    for index in folder.glob("cpu[0-9]*/cache/index*"):
        cpu = index.parts[-3].removeprefix("cpu")
        if mine is not None and int(cpu) not in mine:
            continue
        level, kind, size, sharers = (
            _told(index / name) for name in ("level", "type", "size", "shared_cpu_list")
        )
        parts = re.fullmatch(r"(\d+)([KMG]?)", size)
        if level.isdigit() and kind != "Instruction" and parts:
            # A cache that no list tells the sharers of is taken to be this CPU's own.
            found[int(level)][sharers or cpu] = int(parts[1]) * _UNITS[parts[2]]
    return {level: sorted(found[level].values(), reverse=True) for level in sorted(found)}


def _told(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
