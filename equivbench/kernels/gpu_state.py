"""Clocks, temperature, power and throttle reasons of a GPU, by NVML: what a slow round may be due
to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
