"""The clock of kernels, and how a GPU is throttled meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

# By name: who replaces them later does not replace these.
from time import perf_counter, process_time
from typing import Any

import torch

from equivbench.kernels.checking import WrongKernelError

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

    def __init__(self, device: torch.device, *, watched: bool = True) -> None:
        self._device, self._threads = device, torch.get_num_threads()
        self._watched = watched and device.type == "cpu"
        """Whether more threads than were given are refused."""
        self._unjudged = (0.0, 0.0)
        """Seconds, and those of processors, that are too few to tell."""

    def seconds(self, work: Callable[[], object]) -> float:
        """Run ``work`` and give the seconds until its results are there; gaps in which a GPU waits
        for the host count.

        Raises ``WrongKernelError`` where it is watched and takes more threads of a CPU than it was
        given.
        """
        self._wait()
        start, used = perf_counter(), process_time()
        work()
        self._wait()
        taken, used = perf_counter() - start, process_time() - used
        if self._watched:
            self._judge(taken, used)
        return taken

    def _judge(self, taken: float, used: float) -> None:
        """Refuse work of so many seconds, and processor seconds, for its threads. In a short one a
        tick of another thread is more than the work: such ones are judged together."""
        before = self._unjudged
        taken, used = before[0] + taken, before[1] + used
        if taken < SAMPLE / 2:
            self._unjudged = taken, used
            return
        self._unjudged = (0.0, 0.0)
        if used > _BUSY * self._threads * taken + _BUSY_ANYWAY:
            raise WrongKernelError(
                f"it took {used:.2g} processor seconds in {taken:.2g} seconds on"
                f" {self._threads} thread(s): it runs threads of its own"
            )

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def reduce(self, samples: Sequence[float]) -> float:
        """One number for a round's samples, of which there is at least one.

        The least on a CPU, where noise only ever adds time. A GPU's clock moves both ways, so the
        least is an outlier there: the sample below which a tenth of them lie.
        """
        return sorted(samples)[len(samples) // 10 if self._device.type == "cuda" else 0]


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
