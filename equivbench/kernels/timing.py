"""The clock of kernels, and what their times are held against: how fast memory is copied, how large
the cache is, and how a GPU is throttled."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# By name: who replaces them later does not replace these.
from time import perf_counter, process_time
from typing import Any

import torch

from equivbench.errors import FailedError
from equivbench.kernels.checking import WrongKernelError

_CPU_CACHE = 32 * 2**20
"""Assumed where the system does not tell; large for a desktop."""
_LARGEST = 256 * 2**20
"""Servers share larger caches among many cores; passing this much is enough and keeps memory in
bounds."""
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "": 1}


SAMPLE = 0.01
"""Least seconds of a sample: below, the clock and the scheduler show."""
_BUSY, _BUSY_ANYWAY = 1.5, 2e-3
"""Processor seconds for each second and thread, and beside them, that a kernel within its threads
never needs."""


class Timer:
    """The clock of a device: the host's monotonic one, from when all else on the device has ended
    until everything on it has ended again.

    A GPU's own events would leave out what a kernel queues on a stream of its own; over the
    milliseconds of a sample the host's clock is as good.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._threads = device, torch.get_num_threads()

    def seconds(self, work: Callable[[], object]) -> float:
        """Run ``work`` and give the seconds until its results are there; gaps in which a GPU waits
        for the host count.

        Raises ``WrongKernelError`` where it takes more threads of a CPU than it was given.
        """
        self._wait()
        start, used = perf_counter(), process_time()
        work()
        self._wait()
        taken, used = perf_counter() - start, process_time() - used
        if self._device.type == "cpu" and used > _BUSY * self._threads * taken + _BUSY_ANYWAY:
            raise WrongKernelError(
                f"it took {used:.2g} processor seconds in {taken:.2g} seconds on"
                f" {self._threads} thread(s): it runs threads of its own"
            )
        return taken

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

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
        found = re.fullmatch(r"(\d+)([KMG]?)\s*", file.read_text(encoding="utf-8"))
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
    # A GPU copies this much in less than it takes to ask for it and to wait; a CPU in milliseconds.
    copies = 20 if device.type == "cuda" else 1

    def work() -> None:
        for _ in range(copies):
            target.copy_(source)

    # The first writes map the memory.
    target.copy_(source)
    seconds = min(clock.seconds(work) for _ in range(5)) / copies
    if seconds <= 0.0:
        raise FailedError(
            f"a copy of {4 * numbers} bytes took no time by the clock of {device};"
            " its bandwidth is not known"
        )
    return 2 * 4 * numbers / seconds


# Clocks, temperature, power and throttle reasons of a GPU, by NVML: what a slow round may be due
# to.

_HARMLESS = ("GpuIdle", "ApplicationsClocksSetting", "None")
"""Reasons for a low clock that are no throttling: nothing to do, or set so by the user."""
_PREFIX = "nvmlClocksThrottleReason"


@dataclass(frozen=True)
class GpuState:
    """One reading."""

    sm_clock_mhz: float
    memory_clock_mhz: float
    temperature_celsius: float
    power_watts: float
    throttled_by: tuple[str, ...]
    """NVML's names of what holds the clocks down, such as ``SwPowerCap``; empty if nothing does."""


def gpu_state(nvml: Any, handle: Any) -> GpuState:
    """The state of the board ``handle`` by ``nvml``, the module ``pynvml``."""
    bits = int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
    names = [name for name in dir(nvml) if name.startswith(_PREFIX)]
    known = {name.removeprefix(_PREFIX): int(getattr(nvml, name)) for name in names}
    reasons = {
        name
        for name, bit in known.items()
        if bit.bit_count() == 1 and bits & bit and name not in _HARMLESS
    }
    return GpuState(
        sm_clock_mhz=float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
        memory_clock_mhz=float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
        temperature_celsius=float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        power_watts=float(nvml.nvmlDeviceGetPowerUsage(handle)) / 1000.0,
        throttled_by=tuple(sorted(reasons)),
    )


def summary(states: Sequence[GpuState]) -> dict[str, float | str]:
    """What a sample file says of the ``states`` before and after each round, in turn; throttled
    rounds are counted, not dropped."""
    if not states:
        return {}
    first, last = states[0], states[-1]
    reasons = sorted({reason for state in states for reason in state.throttled_by})
    rounds = zip(states[::2], states[1::2], strict=True)
    return {
        "sm_clock_mhz_before": first.sm_clock_mhz,
        "sm_clock_mhz_after": last.sm_clock_mhz,
        "sm_clock_mhz_least": min(state.sm_clock_mhz for state in states),
        "memory_clock_mhz_before": first.memory_clock_mhz,
        "memory_clock_mhz_after": last.memory_clock_mhz,
        "temperature_celsius_before": first.temperature_celsius,
        "temperature_celsius_after": last.temperature_celsius,
        "power_watts_after": last.power_watts,
        "throttled_rounds": float(
            sum(bool(before.throttled_by or after.throttled_by) for before, after in rounds)
        ),
        "throttled_by": ", ".join(reasons) or "nothing",
    }
