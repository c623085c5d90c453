"""What is said of a GPU's clocks."""

from __future__ import annotations

from types import SimpleNamespace

from equivbench.kernels.timing import GpuState, gpu_state, summary


def fake_nvml(bits: int) -> SimpleNamespace:
    return SimpleNamespace(
        nvmlClocksThrottleReasonNone=0,
        nvmlClocksThrottleReasonGpuIdle=1,
        nvmlClocksThrottleReasonSwPowerCap=4,
        nvmlClocksThrottleReasonHwSlowdown=8,
        nvmlClocksThrottleReasonAll=15,
        NVML_CLOCK_SM=1,
        NVML_CLOCK_MEM=2,
        NVML_TEMPERATURE_GPU=0,
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: bits,
        nvmlDeviceGetClockInfo=lambda handle, kind: {1: 1980, 2: 2619}[kind],
        nvmlDeviceGetTemperature=lambda handle, sensor: 61,
        nvmlDeviceGetPowerUsage=lambda handle: 512_300,
    )


def test_throttle_reasons_are_named_and_idling_is_none():
    assert gpu_state(fake_nvml(0), None) == GpuState(1980.0, 2619.0, 61.0, 512.3, ())
    assert gpu_state(fake_nvml(1), None).throttled_by == ()
    assert gpu_state(fake_nvml(1 + 4 + 8), None).throttled_by == ("HwSlowdown", "SwPowerCap")


def test_throttled_rounds_are_counted_not_dropped():
    cool, hot = gpu_state(fake_nvml(0), None), gpu_state(fake_nvml(4), None)
    told = summary([cool, cool, cool, hot, hot, cool])
    assert (told["throttled_rounds"], told["throttled_by"]) == (2.0, "SwPowerCap")
    assert summary([cool, cool])["throttled_by"] == "nothing"
    assert summary([]) == {}
