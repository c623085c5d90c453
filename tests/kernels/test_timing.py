"""The cache's size, the bandwidth of a copy, and what is said of a GPU's clocks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from equivbench.errors import FailedError
from equivbench.kernels import timing
from equivbench.kernels.timing import (
    GpuState,
    cache_bytes,
    copy_bandwidth,
    gpu_state,
    summary,
)

CPU = torch.device("cpu")


class Clock:
    def __init__(self, *seconds: float) -> None:
        self.left = list(seconds)

    def seconds(self, work):
        return self.left.pop(0)

    def reduce(self, samples):
        raise AssertionError("a copy has no rounds")


def test_the_largest_cache_counts(tmp_path):
    for number, size in enumerate(["64K", "2M\n", "nonsense"]):
        (tmp_path / f"index{number}").mkdir()
        (tmp_path / f"index{number}" / "size").write_text(size)
    assert cache_bytes(CPU, tmp_path) == 2 * 2**20
    assert cache_bytes(CPU, tmp_path / "nowhere") == 32 * 2**20
    (tmp_path / "index2" / "size").write_text("4G")
    assert cache_bytes(CPU, tmp_path) == 256 * 2**20, "more would only cost memory"


def test_bandwidth_is_of_bytes_read_and_written_in_the_best_try(monkeypatch):
    monkeypatch.setattr(timing, "cache_bytes", lambda device: 2**20)
    copied = 2 * 64 * 2**20
    assert copy_bandwidth(CPU, clock=Clock(4.0, 2.0, 8.0, 2.5, 3.0)) == pytest.approx(copied / 2.0)
    with pytest.raises(FailedError, match="took no time"):
        copy_bandwidth(CPU, clock=Clock(0.0, 0.0, 0.0, 0.0, 0.0))


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
