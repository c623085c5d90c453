"""What pytest-benchmark writes down of the machine, where it stores results, and which it refuses
to compare with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from equivbench.environment import (
    KEPT_MEMORY,
    allocator_settings,
    machine_key,
    package_versions,
)
from equivbench.gpu import driver_version, gpu_name

THREADS = 1
"""Of every benchmark here."""


def device() -> str:
    """Where the kernels are timed: on the GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def pytest_configure(config: pytest.Config) -> None:
    """Store results in a folder for each machine: the default folders tell operating systems apart,
    not processors."""
    key = machine_key(device(), THREADS)
    session = getattr(config, "_benchmarksession", None)
    if session is not None:  # pytest found this file late, as it does when called from the root
        if isinstance(getattr(session.storage, "path", None), Path):
            session.storage.path = session.storage.path / key
    elif config.getoption("benchmark_storage", "").startswith("file://"):
        config.option.benchmark_storage = f"{config.option.benchmark_storage}/{key}"


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """Add what changes a time and pytest-benchmark does not know: GPU, driver, torch, threads, and
    what becomes of freed memory."""
    on_gpu = device() == "cuda"
    machine_info |= {
        "machine_key": machine_key(device(), THREADS),
        "gpu": gpu_name() if on_gpu else None,
        "driver": driver_version() if on_gpu else None,
        "threads": THREADS,
        "packages": package_versions(("torch", "e3nn", "numpy")),
        "allocator": allocator_settings(),
    }


def pytest_benchmark_compare_machine_info(
    machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
) -> None:
    """Refuse results of another machine, or timed with another setting of the allocator:
    ``--benchmark-compare-fail`` would judge these."""
    for name, what in (("machine_key", "machine"), ("allocator", "the allocator's settings")):
        before, now = compared_benchmark["machine_info"].get(name), machine_info[name]
        if before != now:
            raise pytest.UsageError(
                f"the results to compare with are of {what} {before}, these of {now}; "
                "measure both alike"
            )


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say how to time with freed memory kept, as kernels are everywhere else."""
    session = getattr(config, "_benchmarksession", None)
    kept = KEPT_MEMORY.items() <= allocator_settings().items()
    if sys.platform == "linux" and getattr(session, "benchmarks", None) and not kept:
        variables = " ".join(f"{name}={value}" for name, value in KEPT_MEMORY.items())
        terminalreporter.write_line(
            "freed memory was given back to the system, which costs time; begin pytest with "
            f"{variables} to time as a run and `equivbench kernels` do"
        )
