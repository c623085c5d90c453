"""The caches as Linux tells them, and where a size stays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from equivbench.kernels.caches import CPUS, cache_bytes, cache_levels, level_of

CPU = torch.device("cpu")
MIB = 2**20


@pytest.fixture(autouse=True)
def four_cpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def told(folder: Path, cpu: int, number: int, level: int, size: str, sharers: str) -> None:
    index = folder / f"cpu{cpu}" / "cache" / f"index{number}"
    index.mkdir(parents=True)
    kind = "Instruction" if number == 1 else "Unified"
    texts = {"level": str(level), "type": kind, "size": size, "shared_cpu_list": sharers}
    for name, text in texts.items():
        (index / name).write_text(f"{text}\n", encoding="utf-8")


def machine(folder: Path, cpus: int = 6) -> Path:
    """Two cores share a cache of the third level; the fifth and sixth are somebody else's."""
    for cpu in range(cpus):
        told(folder, cpu, 0, 1, "48K", str(cpu))
        told(folder, cpu, 1, 1, "999K", str(cpu))
        told(folder, cpu, 2, 2, "1024K", str(cpu))
        told(folder, cpu, 3, 3, "32M", f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}")
    return folder


@pytest.mark.parametrize(
    ("threads", "near", "far"), [(1, 1, 32), (2, 2, 64), (3, 3, 64), (16, 4, 64)]
)
def test_threads_fill_as_many_caches_as_there_are(
    threads: int, near: int, far: int, tmp_path: Path
) -> None:
    torch.set_num_threads(threads)
    levels = cache_levels(CPU, machine(tmp_path))
    assert list(levels) == [1, 2, 3]
    assert (levels[2], levels[3]) == (near * MIB, far * MIB)
    assert levels[1] == near * 48 * 2**10, "without those of instructions"


def test_the_last_cache_is_passed_within_bounds(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    assert cache_bytes(CPU, machine(tmp_path / "usual")) == 32 * MIB
    assert cache_bytes(CPU, tmp_path / "nowhere") == 32 * MIB
    told(tmp_path / "large", 0, 3, 3, "4G", "0-3")
    assert cache_bytes(CPU, tmp_path / "large") == 256 * MIB, "more would only cost memory"
    told(tmp_path / "odd", 0, 3, 3, "nonsense", "0-3")
    assert cache_levels(CPU, tmp_path / "odd") == {}


def test_a_size_stays_in_the_nearest_level_that_holds_it() -> None:
    levels = {1: 2**15, 2: 2**20, 3: 2**25}
    sizes = (1, 2**15, 2**15 + 1, 2**21, 2**25, 2**25 + 1)
    assert [level_of(size, levels) for size in sizes] == ["L1", "L1", "L2", "L3", "L3", "memory"]
    assert level_of(1, {}) is None


@pytest.mark.skipif(not CPUS.exists(), reason="the system does not tell its caches")
def test_this_machines_caches_grow_with_the_level() -> None:
    sizes = list(cache_levels(CPU).values())
    assert sizes == sorted(sizes)
