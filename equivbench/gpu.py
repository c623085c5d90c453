"""A GPU as the machine gives it: its name, its driver, what NVML reads off it, and how whoever runs
the machine has set it. Imports torch only to name a device."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from equivbench.programs import output_of

T = TypeVar("T")
ComputeMode = Literal["default", "exclusive", "prohibited"]

_COMPUTE_MODES: dict[int, ComputeMode] = {1: "exclusive", 2: "prohibited", 3: "exclusive"}
_MPS_PIPE = "/tmp/nvidia-mps"
"""Where the control daemon of CUDA's multi-process service listens unless told otherwise."""


@dataclass(frozen=True)
class GpuSettings:
    """What sets a GPU apart from others of its name."""

    power_cap_watts: int | None = None
    """None where it is the board's default, or is not told."""
    mig: str | None = None
    """Profile of the slice of the board that is used (``1g.10gb``); None for a whole board."""
    compute_mode: ComputeMode = "default"
    """``exclusive``: one process at a time may use it."""


def gpu_name(device: str = "cuda") -> str:
    """The GPU's name as torch gives it, e.g. ``NVIDIA H100 80GB HBM3`` (imports torch)."""
    import torch

    return str(torch.cuda.get_device_name(torch.device(device)))


def driver_version() -> str | None:
    """The NVIDIA driver's version, or None where there is no driver."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return output_of(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
        )
    found = re.search(r"\b(\d{3}\.\d+(?:\.\d+)?)\b", text)
    return found.group(1) if found else None


def nvml_reader(device: str, read: Callable[[Any, Any], T], what: str) -> Callable[[], T] | str:
    """What reads ``what`` (such as ``clocks``) off the board that ``device`` is, or why there is
    nothing to read. ``read(nvml, handle)`` gets the module ``pynvml`` and its handle of the board,
    or of the slice of it, and is tried once here. Imports torch."""
    try:
        import pynvml
    except ImportError:
        return "nvidia-ml-py is not installed: pip install 'equivbench[gpu]'"
    import torch

    try:
        pynvml.nvmlInit()
        # NVML does not follow CUDA_VISIBLE_DEVICES; the UUID names the same board in both.
        uuid = str(torch.cuda.get_device_properties(torch.device(device)).uuid)
        handle = _handle(pynvml, uuid)
        read(pynvml, handle)
    except pynvml.NVMLError as error:
        return f"NVML gives no {what} for this device: {error}"
    return lambda: read(pynvml, handle)


def _handle(nvml: Any, uuid: str) -> Any:
    """The handle of the board with this ``uuid``, or of the slice of one."""
    if uuid.startswith(("GPU-", "MIG-")):
        return nvml.nvmlDeviceGetHandleByUUID(uuid)
    try:
        return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except nvml.NVMLError:
        return nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")


def gpu_settings(device: str) -> GpuSettings | str:
    """How the GPU that ``device`` is was set, or why that is not known. Imports torch."""
    read = nvml_reader(device, read_settings, "settings")
    return read if isinstance(read, str) else read()


def read_settings(nvml: Any, handle: Any) -> GpuSettings:
    """The settings of the board or slice ``handle`` by ``nvml``, the module ``pynvml``. What a GPU
    does not tell is as if nobody had set it."""

    def told(function: str, of: Any, default: Any = None) -> Any:
        try:
            return getattr(nvml, function)(of)
        except nvml.NVMLError:
            return default

    board, mig = handle, None
    if told("nvmlDeviceIsMigDeviceHandle", handle, 0):
        board = told("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle, handle)
        part = told("nvmlDeviceGetAttributes", handle)
        mig = "slice" if part is None else _profile(part)
    cap = told("nvmlDeviceGetPowerManagementLimit", board)
    default = told("nvmlDeviceGetPowerManagementDefaultLimit", board)
    # Milliwatts.
    capped = cap is not None and default is not None and cap != default
    return GpuSettings(
        power_cap_watts=round(cap / 1000) if capped else None,
        mig=mig,
        compute_mode=_COMPUTE_MODES.get(told("nvmlDeviceGetComputeMode", board, 0), "default"),
    )


def _profile(part: Any) -> str:
    """NVIDIA's name of a slice: its share of the processors, and its memory in round numbers."""
    return f"{part.gpuInstanceSliceCount}g.{-(-part.memorySizeMB // 1024)}gb"


def key_of_settings(name: str, settings: GpuSettings | str) -> list[str]:
    """What the key of a machine says of its GPU after the ``name`` that torch gives: the slice,
    where the name does not have it, and a power cap that is not the board's default."""
    if isinstance(settings, str):
        return []
    parts = []
    if settings.mig is not None and "MIG" not in name:
        parts.append(f"mig-{settings.mig}")
    if settings.power_cap_watts is not None:
        parts.append(f"{settings.power_cap_watts}w")
    return parts


def why_not_shared(device: str, processes: int) -> str | None:
    """Why ``processes`` processes cannot compute on ``device`` at a time, and what to do about it;
    None if they can, or if that is not known. Imports torch."""
    settings = gpu_settings(device)
    if isinstance(settings, str) or settings.compute_mode == "default":
        return None
    if settings.compute_mode == "prohibited":
        return (
            f"{device} is in compute mode PROHIBITED, in which nothing computes on it; whoever "
            "runs the machine can set `nvidia-smi -c DEFAULT`"
        )
    if processes < 2 or _multi_process_service():
        return None
    return (
        f"{device} is in compute mode EXCLUSIVE_PROCESS, and the {processes} arms of a contest "
        "take turns on it from a process each; whoever runs the machine can set `nvidia-smi -c "
        "DEFAULT` or start nvidia-cuda-mps-control"
    )


def _multi_process_service() -> bool:
    """Whether CUDA's multi-process service runs, through which processes share a GPU that is
    exclusively its own."""
    pipe = os.environ.get("CUDA_MPS_PIPE_DIRECTORY", _MPS_PIPE)
    return (Path(pipe) / "control").exists()
