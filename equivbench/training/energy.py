"""Energy that the device used while the run held it, from NVML's total energy counter where there
is one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

Counter = Callable[[], float]
"""Joules since some fixed moment."""


class EnergyMeter:
    """Joules over the stretches in which the run holds the device; ``reason`` says why there are
    none."""

    def __init__(self, counter: Counter | None, reason: str | None = None) -> None:
        self._counter = counter
        self.reason = reason
        self.joules: float | None = None if counter is None else 0.0

    @contextlib.contextmanager
    def metered(self) -> Iterator[None]:
        """Count the block."""
        if self._counter is None or self.joules is None:
            yield
            return
        before = self._counter()
        try:
            yield
        finally:
            self.joules += self._counter() - before


def energy_meter(device: torch.device) -> EnergyMeter:
    """The meter of ``device``."""
    if device.type != "cuda":
        return EnergyMeter(None, "no energy counter is read on a CPU")
    try:
        import pynvml
    except ImportError:
        return EnergyMeter(None, "nvidia-ml-py is not installed (extra gpu)")
    try:
        pynvml.nvmlInit()
        # NVML does not follow CUDA_VISIBLE_DEVICES; the UUID names the same board in both.
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        handle = pynvml.nvmlDeviceGetHandleByUUID(
            uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"
        )
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:
        return EnergyMeter(None, f"NVML gives no energy for this device: {error}")
    return EnergyMeter(lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000.0)
