"""Kernel samples on disk: round trips, merging by identity, broken files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from factories import make_record

from equivbench.errors import FailedError
from equivbench.records.files import write_lines
from equivbench.records.line_files import KERNEL_FILE, KernelSamples
from equivbench.records.store import record_files


def sample(backend: str, seconds: float = 1.0, dtype: str = "float32") -> KernelSamples:
    record = make_record()
    return KernelSamples(
        created="2026-01-02T03:04:05+00:00",
        command="",
        case="toy",
        mode="forward",
        backend=backend,
        method="by hand",
        dtype=dtype,
        rounds=[seconds],
        compile_seconds=0.0,
        errors={},
        bytes_fused=1.0,
        bytes_unfused=1.0,
        operations=1.0,
        bandwidth=1.0,
        fraction_of_floor=1.0,
        environment=record.environment,
        git=record.git,
    )


def test_samples_come_back_as_they_went(tmp_path: Path) -> None:
    samples = [sample("a"), sample("b", 2.0)]
    assert KERNEL_FILE.read(write_lines(samples, tmp_path / "new" / "kernels.jsonl")) == samples


def test_of_many_writers_nobody_loses_a_sample(tmp_path: Path) -> None:
    path = tmp_path / "new" / "kernels.jsonl"
    names = [f"backend {number}" for number in range(12)]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: KERNEL_FILE.merge([sample(name)], path), names))
    assert sorted(one.backend for one in KERNEL_FILE.read(path)) == sorted(names)
    assert [each.name for each in record_files(tmp_path, endings=(".jsonl",))] == [path.name]


def test_the_newer_of_two_alike_counts_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / "kernels.jsonl"
    elsewhere = sample("a")
    elsewhere.environment = msgspec.structs.replace(elsewhere.environment, machine_key="another")
    KERNEL_FILE.merge([sample("a"), sample("b"), elsewhere], path)
    KERNEL_FILE.merge([sample("a", 3.0), sample("a", 4.0, dtype="float64")], path)
    found = [
        (one.backend, one.rounds, one.dtype, one.environment.machine_key)
        for one in KERNEL_FILE.read(path)
    ]
    here = sample("a").environment.machine_key
    assert found == [
        ("a", [3.0], "float32", here),
        ("b", [1.0], "float32", here),
        ("a", [1.0], "float32", "another"),
        ("a", [4.0], "float64", here),
    ]


def test_a_file_that_is_no_samples_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "kernels.jsonl"
    path.write_text('{"learning_rate": 1}\n')
    with pytest.raises(FailedError, match="line 1"):
        KERNEL_FILE.merge([sample("a")], path)
    assert path.read_text() == '{"learning_rate": 1}\n'
