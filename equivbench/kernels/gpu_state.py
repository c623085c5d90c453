"""Clocks, temperature, power and throttle reasons of a GPU, by NVML: what a slow round may be due
to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from equivbench.environment import nvml_reader

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


def reader(device: torch.device) -> Callable[[], GpuState] | str:
    """What reads the state of ``device``, or why there is nothing to read."""
    if device.type != "cuda":
        return "no clocks are read on a CPU"
    return nvml_reader(str(device), read, "clocks")


def read(nvml: Any, handle: Any) -> GpuState:
    """The state of the board ``handle`` by ``nvml``, the module ``pynvml``."""
    bits = int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
    known = {
        name.removeprefix(_PREFIX): int(getattr(nvml, name))
        for name in dir(nvml)
        if name.startswith(_PREFIX)
    }
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


def summary(rounds: Sequence[tuple[GpuState, GpuState]]) -> dict[str, float | str]:
    """What a sample file says of the states before and after each of the ``rounds``; throttled ones
    are counted, not dropped."""
    if not rounds:
        return {}
    first, last = rounds[0][0], rounds[-1][1]
    reasons = sorted({reason for pair in rounds for state in pair for reason in state.throttled_by})
    return {
        "sm_clock_mhz_before": first.sm_clock_mhz,
        "sm_clock_mhz_after": last.sm_clock_mhz,
        "sm_clock_mhz_least": min(state.sm_clock_mhz for pair in rounds for state in pair),
        "memory_clock_mhz_before": first.memory_clock_mhz,
        "memory_clock_mhz_after": last.memory_clock_mhz,
        "temperature_celsius_before": first.temperature_celsius,
        "temperature_celsius_after": last.temperature_celsius,
        "power_watts_after": last.power_watts,
        "throttled_rounds": float(
            sum(any(state.throttled_by for state in pair) for pair in rounds)
        ),
        "throttled_by": ", ".join(reasons) or "nothing",
    }
