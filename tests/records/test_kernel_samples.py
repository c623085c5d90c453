"""Kernel samples on disk: round trips, repetitions that replace nothing, broken files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from factories import make_record
from toy_roofline import toy_roofline
from toy_samples import kernel_samples

from equivbench.errors import FailedError
from equivbench.records.files import write_lines
from equivbench.records.line_files import KERNEL_FILE, KernelSamples, of_newest_code
from equivbench.records.schema import Git
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
        allocator={},
        roofline=toy_roofline(
            {"bytes_fused": 1.0, "operations": 1.0, "bandwidth": 1.0, "rounds": [seconds]}
        ),
        environment=record.environment,
        git=record.git,
    )


def test_samples_come_back_as_they_went(tmp_path: Path) -> None:
    samples = [sample("a"), sample("b", 2.0)]
    assert KERNEL_FILE.read(write_lines(samples, tmp_path / "new" / "kernels.jsonl")) == samples


def test_samples_of_before_are_read_kept_and_held_to_their_own_rules(tmp_path: Path) -> None:
    published = Path(__file__).parents[2] / "results" / "amd-epyc-f25m17-2t" / "kernels.jsonl"
    lines = published.read_bytes().splitlines(keepends=True)
    path = tmp_path / "kernels.jsonl"
    path.write_bytes(b"".join(line for line in lines if b'"schema_version":1,' in line))
    old = KERNEL_FILE.read(path)
    assert [KERNEL_FILE.problems_of(one) for one in old] == [[]] * len(old)
    new = kernel_samples([1e-3])
    assert KERNEL_FILE.problems_of(new) == []
    KERNEL_FILE.merge([new], path)
    assert KERNEL_FILE.read(path) == [*old, new]
    assert all(
        one.roofline is None and one.fraction_of_floor for one in KERNEL_FILE.read(path)[:-1]
    )


def test_a_fraction_above_one_is_a_fault_of_the_instrument() -> None:
    # 1 MB in 10 us are 1e11 bytes a second, ten times what the copy beside it gave.
    assert any(
        "an instrument is at fault" in each
        for each in KERNEL_FILE.problems_of(kernel_samples([1e-5]))
    )


def test_of_many_writers_nobody_loses_a_sample(tmp_path: Path) -> None:
    path = tmp_path / "new" / "kernels.jsonl"
    names = [f"backend {number}" for number in range(12)]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: KERNEL_FILE.merge([sample(name)], path), names))
    assert sorted(one.backend for one in KERNEL_FILE.read(path)) == sorted(names)
    assert [each.name for each in record_files(tmp_path, endings=(".jsonl",))] == [path.name]


def test_nothing_that_was_measured_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "kernels.jsonl"
    elsewhere = sample("a")
    elsewhere.environment = msgspec.structs.replace(elsewhere.environment, machine_key="another")
    first = [sample("a"), sample("b"), elsewhere]
    KERNEL_FILE.merge(first, path)
    later = [sample("a", 3.0), sample("a", 4.0, dtype="float64")]
    KERNEL_FILE.merge(later, path)
    assert KERNEL_FILE.read(path) == [*first, *later]
    KERNEL_FILE.merge(first, path)
    assert KERNEL_FILE.read(path) == [*first, *later], "what is there already is no repetition"


def test_of_one_code_the_first_counts_and_other_code_is_not_todays() -> None:
    def made(day: int, commit: str, seconds: float) -> KernelSamples:
        git = Git(commit=commit, dirty=False)
        return msgspec.structs.replace(
            sample("a", seconds), created=f"2026-01-{day:02}T03:04:05+00:00", git=git
        )

    samples = [made(1, "old", 9.0), made(4, "new", 2.0), made(3, "new", 1.0), made(2, "old", 8.0)]
    (own,) = of_newest_code(samples)
    assert [one.rounds for one in own] == [[1.0], [2.0]]
    assert sorted(len(own) for own in of_newest_code([*samples, sample("b")])) == [1, 2]


def test_a_file_that_is_no_samples_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "kernels.jsonl"
    path.write_text('{"learning_rate": 1}\n')
    with pytest.raises(FailedError, match="line 1"):
        KERNEL_FILE.merge([sample("a")], path)
    assert path.read_text() == '{"learning_rate": 1}\n'
