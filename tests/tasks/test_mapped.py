"""Large archives: unpacked once into files that are mapped, checked each time, whole or not
there."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backbones import backbone_layout

from equivbench.errors import FailedError
from equivbench.tasks import mapped, storage
from equivbench.tasks.archives import sha256_of
from equivbench.tasks.storage import RaggedTable

LAYOUT = backbone_layout(np.float32)
SAMPLES = 500


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and every archive counts as large."""
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(storage, "MAPPED_FROM", 0)
    return tmp_path / "cache"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    counts = np.arange(SAMPLES, dtype=np.int32) % 7 + 1
    columns: dict[str, np.ndarray] = {
        "pos": np.random.default_rng(0).normal(size=(counts.sum(), 3)).astype(np.float32),
        "n_atoms": counts,
        "molecule": np.arange(SAMPLES, dtype=np.int32) // 2,
        "split": (np.arange(SAMPLES) % 3).astype(np.uint8),
        "name": np.array([f"m{i}".encode() for i in range(SAMPLES // 2)]),
    }
    return RaggedTable(LAYOUT, columns).write(
        tmp_path / "large.npz", {}, "", licences={"data": "MIT"}, recipe={}
    )


def unpacked(cache: Path) -> Path:
    (folder,) = (each for each in (cache / "datasets" / "unpacked").iterdir() if each.is_dir())
    return folder


def test_the_columns_are_those_of_the_archive_and_are_not_in_memory(
    archive: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, card = LAYOUT.read(archive)
    monkeypatch.setattr(storage, "MAPPED_FROM", 10**9)
    in_memory, same_card = LAYOUT.read(archive)
    assert card == same_card
    for name in LAYOUT.columns:
        assert np.array_equal(table[name], in_memory[name])
        assert isinstance(table[name].base, np.memmap)
        assert not isinstance(in_memory[name].base, np.memmap)


def test_it_is_unpacked_once(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LAYOUT.read(archive)
    monkeypatch.setattr(mapped, "_unpack", lambda *_: pytest.fail("unpacked again"))
    LAYOUT.read(archive)


def test_whoever_writes_to_a_column_changes_it_for_nobody_else(archive: Path) -> None:
    first, _ = LAYOUT.read(archive)
    before = float(first["pos"][0, 0])
    first["pos"][0, 0] = 99.0
    assert float(LAYOUT.read(archive)[0]["pos"][0, 0]) == before


@pytest.mark.parametrize("harm", ["changed", "cut", "gone", "index", "empty"])
def test_columns_that_are_no_longer_what_was_unpacked_are_made_again(
    archive: Path, cache: Path, harm: str
) -> None:
    expected = LAYOUT.read(archive)[0]["pos"].copy()
    column = unpacked(cache) / "pos.npy"
    content = bytearray(column.read_bytes())
    if harm == "changed":
        content[len(content) // 2] ^= 1
        column.write_bytes(content)
    elif harm == "cut":
        column.write_bytes(content[:-8])
    elif harm == "gone":
        column.unlink()
    elif harm == "index":
        (unpacked(cache) / "columns.json").write_text("{")
    else:
        shutil.rmtree(unpacked(cache))
    assert np.array_equal(LAYOUT.read(archive)[0]["pos"], expected)


def test_an_archive_that_is_not_what_its_card_says_leaves_nothing(
    archive: Path, cache: Path
) -> None:
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    with pytest.raises(FailedError, match=r"cut short or changed.*data prepare large"):
        LAYOUT.read(archive)
    assert not [each for each in (cache / "datasets" / "unpacked").iterdir() if each.is_dir()]


def test_columns_that_do_not_hang_together_leave_nothing(
    archive: Path, cache: Path, tmp_path: Path
) -> None:
    with np.load(archive) as arrays:
        columns = {name: arrays[name] for name in arrays.files}
    columns["pos"][3, 1] = np.nan
    np.savez_compressed(archive, **columns)
    card = json.loads(archive.with_suffix(".json").read_text())
    card["sha256"] = sha256_of(archive)
    archive.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(FailedError, match="hold values that are not finite"):
        LAYOUT.read(archive)
    assert not [each for each in (cache / "datasets" / "unpacked").iterdir() if each.is_dir()]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    archive: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(FailedError, match=r"cannot be kept.*No space left.*EQUIVBENCH_CACHE"):
        LAYOUT.read(archive)
    assert not [each for each in (cache / "datasets" / "unpacked").iterdir() if each.is_dir()]


def test_what_a_killed_process_left_is_removed(archive: Path, cache: Path) -> None:
    LAYOUT.read(archive)
    whole = unpacked(cache)
    left = whole.with_name(f"{whole.name}.0123.partial")
    left.mkdir()
    (left / "pos.npy").write_bytes(b"half")
    shutil.rmtree(whole)
    LAYOUT.read(archive)
    assert not left.exists()


READS = """
import sys
from pathlib import Path
from equivbench.tasks import storage
from equivbench.tasks.storage import Layout, RaggedColumn
storage.MAPPED_FROM = 0
columns = {"pos": RaggedColumn("item", "f4", (3,)), "split": RaggedColumn("sample", "u1")}
columns |= {name: RaggedColumn("sample", "i4") for name in ("n_atoms", "molecule")}
layout = Layout("backbone", columns, "molecule", "atoms", "shapes", {}, "none")
sys.stdin.read()
print(repr(float(layout.read(Path(sys.argv[1]))[0]["pos"].sum())))
"""


def test_processes_that_load_at_once_share_one_copy(archive: Path, cache: Path) -> None:
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READS, str(archive)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for reader in readers:
        assert reader.stdin is not None
        reader.stdin.close()
    sums = []
    for reader in readers:
        assert reader.stdout is not None
        with reader.stdout:
            sums.append(reader.stdout.read())
        assert reader.wait(120) == 0
    assert sums == [f"{float(LAYOUT.read(archive)[0]['pos'].sum())!r}\n"] * 2
    assert unpacked(cache)
