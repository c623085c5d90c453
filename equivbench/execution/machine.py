"""What a run is given by the machine it runs on: device, threads, folders that can be written."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from equivbench.environment import usable_cores
from equivbench.errors import FailedError, unknown_name
from equivbench.kernels.backends import absent
from equivbench.registry import KERNEL_BACKENDS
from equivbench.request import RunRequest


@dataclass(frozen=True)
class Machine:
    """The device and the CPU threads that every arm of a plan computes with."""

    device: str
    """``cpu``, ``cuda`` or ``cuda:N``."""
    threads: int


def this_machine(request: RunRequest) -> Machine:
    """What ``request`` means on the machine that this process runs on.

    Raises
    ------
    FailedError
        Where the device that was asked for, or the kernel backend, is not here.
    """
    device = resolve_device(request.device)
    if request.kernels is not None:
        reason = absent(KERNEL_BACKENDS.get(request.kernels), device)
        if reason is not None:
            raise FailedError(f"--kernels {request.kernels}: {reason}")
    return Machine(device, request.threads if request.threads is not None else default_threads())


def default_threads() -> int:
    """Physical cores that this process may use: a second hyper-thread of a core slows dense
    arithmetic down."""
    usable = usable_cores()
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable))


def check_device_name(device: str) -> None:
    """Raise ``UsageError`` unless ``device`` is ``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    kind, colon, index = device.partition(":")
    named = kind in ("auto", "cpu", "cuda") and not colon
    if not named and not (kind == "cuda" and index.isdigit()):
        raise unknown_name("device", device, ["auto", "cpu", "cuda"])


def resolve_device(device: str) -> str:
    """``auto`` becomes ``cuda`` where there is a driver and a usable GPU, else ``cpu``.

    Raises
    ------
    UsageError
        For a name that is no device.
    FailedError
        Where a device that is named is not here.
    """
    check_device_name(device)
    if device == "cpu" or (device == "auto" and not _has_driver()):
        return "cpu"
    # Only a machine with a driver, or a user who names a GPU, pays for this import.
    import torch

    index = device.partition(":")[2]
    if torch.cuda.is_available() and (not index or int(index) < torch.cuda.device_count()):
        return "cuda" if device == "auto" else device
    if device == "auto":
        return "cpu"
    raise FailedError(
        f"device {device} is not available: torch {torch.__version__} sees "
        f"{torch.cuda.device_count()} CUDA devices"
    )


def check_writable(folder: str, what: str = "results folder", option: str = "--out") -> None:
    """Raise ``FailedError`` unless a file can be written in ``folder``, which is made if missing.

    ``what`` it is and the ``option`` that names another go into the message.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\n")
    except OSError as error:
        raise FailedError(
            f"the {what} {folder} cannot be written: {error.strerror}; name another with {option}"
        ) from error


@contextlib.contextmanager
def with_threads(count: int) -> Iterator[None]:
    """Inside the block torch computes with ``count`` threads, afterwards with as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _has_driver() -> bool:
    return shutil.which("nvidia-smi") is not None or Path("/dev/nvidiactl").exists()
