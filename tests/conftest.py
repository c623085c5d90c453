"""Settings shared by all tests; the helpers that tests import lie in ``tests/support``."""

from __future__ import annotations

import gc
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from jaxtyping import config as jaxtyping_config
from typechecking import check_calls

if TYPE_CHECKING:
    from running import Bench

# Checked at every call while tests run; it costs nothing otherwise.
check_calls(
    "equivbench.gap",
    "equivbench.kernels.neighbours",
    "equivbench.kernels.periodic_neighbours",
    "equivbench.measure",
    "equivbench.records",
    "equivbench.symmetry",
    "equivbench.tasks.base",
    "equivbench.tasks.voxel.data",
    "equivbench.training",
)

# The same examples on every run, few of them, and no verdict that depends on how busy the machine
# is.
settings.register_profile(
    "reproducible", derandomize=True, deadline=None, database=None, max_examples=40
)
settings.load_profile("reproducible")


# A shell starts what is to run behind it (``pytest &``) with this signal ignored, which every
# process that a test starts and interrupts would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--once``, for a first look at a change."""
    parser.addoption(
        "--once", action="store_true", help="run each test with the first of its parameters only"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the first parameters of each test if ``--once`` was given; start with the files that
    wait for a scheduler, and go on with those that hold slow tests, so that no worker begins one
    when the others have nothing left."""
    first, then = (
        {item.path for item in items if item.get_closest_marker(name)}
        for name in ("cluster", "slow")
    )
    items.sort(key=lambda item: (item.path not in first, item.path not in then))
    if config.getoption("--once"):
        kept = set({item.nodeid.partition("[")[0]: item for item in reversed(items)}.values())
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = [item for item in items if item in kept]


def pytest_collection_finish() -> None:
    """Spare the garbage collector what is there before the first test: thousands of tests and all
    of torch, through which whatever collects in a test would look each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def unchecked_types() -> Iterator[None]:
    """For tests that break a type on purpose, to see what a user is told who does."""
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", False)


@pytest.fixture
def warm_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process runs itself has workers that start at once, as those of the bench, and
    short timing rounds."""
    from warm import WarmPopen

    from equivbench.execution import contest

    monkeypatch.setattr(subprocess, "Popen", WarmPopen)
    monkeypatch.setattr(contest, "_timing_seconds", lambda job: 0.02)


@pytest.fixture
def processor_with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans are made as on a processor that has arithmetic in bfloat16: many have none."""
    from equivbench import environment

    monkeypatch.setattr(environment, "_cpuinfo", lambda _: "avx512_bf16")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """The command line with the toy package installed, entry points and all."""
    from running import with_toys

    return with_toys(tmp_path)
