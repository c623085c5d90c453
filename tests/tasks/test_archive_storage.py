"""Archives of any task: what is written is read back, the cards agree, an unfinished file is built
again."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backbones import backbone_layout

from equivbench.errors import FailedError
from equivbench.records.files import write_atomically
from equivbench.tasks.archives import ArchiveSource, read_card
from equivbench.tasks.base import TaskData
from equivbench.tasks.storage import (
    RaggedColumn,
    RaggedTable,
    TableBuilder,
    draw,
    orientation,
    split_of,
)

LAYOUT = backbone_layout(np.int16)
ARRAYS: dict[str, np.ndarray] = {
    "pos": np.arange(6, dtype=np.int16).reshape(2, 3),
    "n_atoms": np.array([1, 1]),
    "molecule": np.array([0, 1]),
    "split": np.array([0, 0], dtype=np.uint8),
    "name": np.array([b"a", b"bc"]),
}


def write(out: Path) -> Path:
    table = RaggedTable(LAYOUT, ARRAYS)
    summary = "Has {bytes} bytes, `{sha256}`."
    return table.write(out, {"fact": 1}, summary, licences={"data": "MIT"}, recipe={"seed": 0})


def test_what_is_written_is_read_back_and_both_cards_name_its_checksum(tmp_path: Path) -> None:
    path = write(tmp_path / "new" / "set.npz")
    table, card = LAYOUT.read(path)
    assert all(np.array_equal(table[name], ARRAYS[name]) for name in ARRAYS)
    identity = ["name", "version", "sha256", "bytes", "sizes", "molecules", "atoms"]
    assert list(card) == [*identity, "fact", "units", "split_rule", "licences", "recipe"]
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (
        f"Has {path.stat().st_size} bytes, `{card['sha256']}`."
        in path.with_suffix(".md").read_text()
    )
    assert write(tmp_path / "again" / "set.npz").read_bytes() == path.read_bytes()


def test_an_archive_that_lacks_an_array_is_named_with_its_kind(tmp_path: Path) -> None:
    path = write(tmp_path / "set.npz")
    charged = replace(LAYOUT, columns={**LAYOUT.columns, "charge": RaggedColumn("item", np.int8)})
    with pytest.raises(FailedError, match=r"set\.npz is not a backbone archive.*data prepare set"):
        charged.read(path)


@pytest.mark.parametrize(
    ("column", "values", "complaint"),
    [
        ("n_atoms", np.array([2, 0]), "hold shapes without atoms"),
        ("n_atoms", np.array([2, 2]), "disagree in length"),
        ("pos", np.zeros((2, 2), dtype=np.int16), "disagree in length"),
        ("split", np.array([0, 3], dtype=np.uint8), "name splits that do not exist"),
        ("molecule", np.array([0, 2]), "name molecules that do not exist"),
        ("pos", np.array([[0, 0, 0], [0, np.nan, 0]]), "hold values that are not finite"),
    ],
)
def test_nothing_is_written_that_would_not_be_read(
    tmp_path: Path, column: str, values: np.ndarray, complaint: str
) -> None:
    table = RaggedTable(LAYOUT, {**ARRAYS, column: values})
    with pytest.raises(FailedError, match=f"nothing was written: .*set.npz {complaint}"):
        table.write(tmp_path / "set.npz", {}, "", licences={}, recipe={})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [32_768, -32_769, 264_000])
def test_a_number_that_does_not_fit_its_column_is_refused_and_not_changed(value: int) -> None:
    builder = TableBuilder(LAYOUT)
    row = {"pos": np.array([[0, value, 0]])}
    with pytest.raises(FailedError, match="the values of pos do not fit int16"):
        builder.add_samples("water", np.array([1]), None, **row)


def test_units_of_one_identity_are_one_under_the_first_of_their_names() -> None:
    builder = TableBuilder(LAYOUT)
    for name in ("first", "second"):
        row = {"pos": np.array([[1, 2, 3]])}
        builder.add_samples(name, np.array([1]), None, identity="same", **row)
    table = builder.finish("here", (split_of("same"),))
    assert table["name"].tolist() == [b"first"]
    assert table["molecule"].tolist() == [0, 0]


def test_a_file_without_its_card_was_not_finished_and_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path))
    built: list[Path] = []

    def build(path: Path) -> None:
        built.append(write(path))

    def read(path: Path) -> TaskData:
        raise NotImplementedError

    source = ArchiveSource("set", "toy", read, build)
    assert source.problem("mine") is not None
    source.prepare()
    assert source.problem("mine") is None
    for half in (source.path().with_suffix(".json"), source.path()):
        half.unlink()
        said = source.problem("mine")
        assert "run `equivbench data prepare mine`" in str(said)
        for _ in range(2):
            source.prepare()
    assert len(built) == 3
    card: dict[str, Any] = read_card(source.path())
    assert source.verify() == card["sha256"]
    source.path().write_bytes(b"cut")
    assert "cut short or changed" in str(source.problem("mine"))


def test_a_rebuild_that_ends_early_leaves_no_card_of_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "set.npz")

    def full(where: Path, content: bytes) -> None:
        if where.suffix != ".npz":
            raise OSError("no space left")
        write_atomically(where, content)

    monkeypatch.setattr("equivbench.tasks.storage.write_atomically", full)
    with pytest.raises(OSError, match="no space"):
        write(path)
    assert [file.suffix for file in tmp_path.iterdir() if file.suffix != ".md"] == [".npz"]


@pytest.mark.parametrize(
    "sources",
    [
        ["a.xyz"],
        {"a.xyz": 3},
        {"a.xyz": {"bytes": 3}},
        {"a.xyz": {"bytes": "3", "sha256": "0"}},
        {"a.xyz": {"bytes": 3, "sha256": None}},
        {"../a.xyz": {"bytes": 3, "sha256": "0"}},
    ],
)
def test_a_card_whose_sources_make_no_sense_is_refused_with_a_sentence(
    tmp_path: Path, sources: object
) -> None:
    path = write(tmp_path / "set.npz")
    where = path.with_suffix(".json")
    where.write_text(json.dumps({**json.loads(where.read_text()), "sources": sources}))
    with pytest.raises(FailedError, match="how many bytes it has and their SHA-256"):
        read_card(path)


def test_a_source_that_is_older_than_the_card_is_hashed_by_verify_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path))
    file = tmp_path / "source.xyz"
    file.write_text("three")
    hashed: list[Path] = []

    def build(path: Path) -> None:
        write(path)
        where = path.with_suffix(".json")
        facts = {"bytes": 5, "sha256": hashlib.sha256(b"three").hexdigest()}
        where.write_text(
            json.dumps({**json.loads(where.read_text()), "sources": {file.name: facts}})
        )
        os.utime(where, ns=(0, file.stat().st_mtime_ns + 1))

    def sha256_of(path: Path) -> str:
        hashed.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr("equivbench.tasks.archives.sha256_of", sha256_of)
    source = ArchiveSource("set", "toy", lambda path: None, build, origin=lambda name: file)
    source.prepare()
    source.prepare()
    assert hashed == []
    source.verify()
    assert hashed == [file]
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 2))
    source.prepare()
    assert hashed == [file, file]
    file.write_text("longer")
    with pytest.raises(FailedError, match="changed since set was converted"):
        source.verify()
    assert hashed == [file, file], "another size is another file"


def test_splits_are_a_fifth_and_a_tenth_of_the_names() -> None:
    names = [f"unit {index}" for index in range(20_000)]
    drawn = np.array([draw(name) for name in names])
    # Kolmogorov and Smirnov: 20,000 uniform numbers stray further once in 1,000 sets, and these
    # names are fixed.
    assert np.abs(np.sort(drawn) - np.linspace(0, 1, len(drawn))).max() < 0.014
    for name, u in zip(names[:200], drawn, strict=False):
        assert split_of(name) == ("test" if u < 0.2 else "validation" if u < 0.3 else "train")


def test_the_card_says_whether_samples_lie_in_a_common_orientation() -> None:
    generator = np.random.default_rng(0)
    counts = generator.integers(4, 9, 400)
    rods = generator.normal(size=(int(counts.sum()), 3)) * [5.0, 1.0, 0.5]
    turned = np.concatenate(
        [
            part @ np.linalg.qr(generator.normal(size=(3, 3)))[0]
            for part in np.split(rods, counts.cumsum()[:-1])
        ]
    )

    def table(pos: np.ndarray) -> RaggedTable:
        layout = replace(LAYOUT, positions="pos")
        return RaggedTable(layout, {"pos": pos, f"n_{layout.items}": counts})

    # The axes are those of each sample's singular value decomposition.
    axes = [
        np.linalg.svd(part - part.mean(0))[2][0] for part in np.split(turned, counts.cumsum()[:-1])
    ]
    assert table(turned).principal_axis() == pytest.approx(
        np.abs(axes).mean(0).round(3).tolist(), abs=1.1e-3
    )
    assert table(turned).principal_axis() == pytest.approx([0.5] * 3, abs=0.06)
    assert table(rods).principal_axis()[0] > 0.95
    assert "no common orientation" in orientation(table(turned).principal_axis())
    assert "canonicalised" in orientation(table(rods).principal_axis())
