"""The shipped conformers: what their card says is true of them, their splits do not leak, and
damage is noticed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from equivbench.errors import FailedError
from equivbench.tasks.archives import read_card
from equivbench.tasks.base import SPLITS, TaskData
from equivbench.tasks.storage import RaggedTable, split_of
from equivbench.tasks.voxel.data import load, on_grid
from equivbench.tasks.voxel.declarations import DATASETS
from equivbench.tasks.voxel.sources import (
    conformers_10k,
    conformers_16,
    conformers_64,
    conformers_small,
)
from equivbench.tasks.voxel.table import (
    DEV,
    ELEMENTS,
    LAYOUT,
    MARGIN,
    NUMBERS,
    PUBLISHED,
    SMALL,
    UNIT,
    ConformerBuilder,
    Grid,
    bounding_radii,
    standard,
)

SHIPPED = conformers_small().path()


@pytest.fixture(scope="module")
def table() -> RaggedTable:
    return LAYOUT.read(SHIPPED)[0]


@pytest.fixture(scope="module")
def shipped() -> TaskData:
    return conformers_small().load()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the shipped set, to be damaged."""
    for suffix in (".npz", ".json"):
        shutil.copy(SHIPPED.with_suffix(suffix), tmp_path)
    return tmp_path / SHIPPED.name


def test_every_molecule_is_in_the_one_split_that_its_name_draws(table: RaggedTable) -> None:
    assert len(table["n_atoms"]) == len(table["names"]) == len(set(table["names"].tolist())) == 2000
    assert sorted(table["molecule"].tolist()) == list(range(2000))
    for molecule, code in zip(table["molecule"], table["split"], strict=True):
        assert SPLITS[code] == split_of(table["names"][molecule].decode())


def test_sizes_are_as_the_card_says(shipped: TaskData, table: RaggedTable) -> None:
    card = read_card(SHIPPED)
    assert (
        card["sizes"]
        == card["molecules"]
        == {name: len(shipped.split(name)) for name in SPLITS}
        == dict(shipped.card.sizes)
    )
    assert card["sizes"]["test"] >= 200
    assert card["sha256"] == shipped.card.sha256 == conformers_small().verify()
    assert card["atoms"] == len(table["channel"]) == sum(card["elements"].values())
    assert f"SHA-256 `{card['sha256']}`" in SHIPPED.with_suffix(".md").read_text()
    assert SHIPPED.stat().st_size < 1.5e6


def test_every_molecule_fits_the_small_box_at_every_rotation(table: RaggedTable) -> None:
    # Stored positions are rounded to 1 mA.
    assert bounding_radii(table).max() + MARGIN <= SMALL.box / 2 + UNIT
    assert table["n_atoms"].min() >= 10


def test_bond_lengths_are_those_of_molecules(table: RaggedTable) -> None:
    first = table["n_atoms"].cumsum() - table["n_atoms"]
    for start, n in zip(first[::10], table["n_atoms"][::10], strict=True):
        pos = UNIT * table["pos"][start : start + n].astype(np.float64)
        nearest = (
            np.linalg.norm(pos[:, None] - pos[None], axis=-1) + np.diag(np.full(n, np.inf))
        ).min(1)
        # O-H is .96 A; the longest bond of these elements to the nearest neighbour, C-Br, 1.95 A.
        assert nearest.min() > 0.93
        assert nearest.max() < 2.0


def test_collate_gathers_the_samples_one_after_another(
    shipped: TaskData, table: RaggedTable
) -> None:
    indices = torch.tensor([7, 2, 2, 30])
    batch = shipped.validation.collate(indices)
    samples = np.flatnonzero(table["split"] == SPLITS.index("validation"))[indices]
    first = table["n_atoms"].cumsum() - table["n_atoms"]
    spans = [slice(first[s], first[s] + table["n_atoms"][s]) for s in samples]
    assert np.allclose(
        batch["pos"].numpy(), UNIT * np.concatenate([table["pos"][span] for span in spans])
    )
    assert np.array_equal(
        batch["channel"].numpy(), np.concatenate([table["channel"][span] for span in spans])
    )
    assert (
        batch["n_atoms"].tolist()
        == torch.bincount(batch["batch"]).tolist()
        == table["n_atoms"][samples].tolist()
    )
    assert batch["batch"].diff().min() >= 0
    assert {name: tensor.dtype for name, tensor in batch.items()} == {
        "pos": torch.float32,
        "channel": torch.int64,
        "batch": torch.int64,
        "n_atoms": torch.int64,
        "grid": torch.float64,
    }
    assert [Grid.of(*row) for row in batch["grid"].tolist()] == [SMALL] * 4
    assert shipped.validation.groups.tolist() == list(range(len(shipped.validation)))


def test_the_same_molecules_are_shown_on_other_grids(shipped: TaskData) -> None:
    published, dev = conformers_64().load(), conformers_16().load()
    assert published.card.sizes == shipped.card.sizes
    assert {data.card.name for data in (shipped, published, dev)} == {
        "conformers-small",
        "conformers-64",
        "conformers-16",
    }
    assert {data.card.sha256 for data in (shipped, published, dev)} == {shipped.card.sha256}
    for data, grid in ((published, PUBLISHED), (dev, DEV)):
        for name in SPLITS:
            split = data.split(name)
            batch = split.collate(torch.arange(len(split)))
            assert batch["pos"].norm(dim=1).max() + MARGIN <= grid.box / 2
            assert torch.equal(batch["grid"][0], torch.tensor(grid.numbers(), dtype=torch.float64))
    assert sum(dev.card.sizes.values()) >= 60
    assert min(dev.card.sizes.values()) >= 8


def test_a_grid_that_shows_nothing_is_a_failure_that_says_so(table: RaggedTable) -> None:
    with pytest.raises(
        FailedError,
        match=r"no conformer of toy in train and validation and test fits the 4 A box of 8\^3",
    ):
        on_grid(table, {"version": "1", "sha256": ""}, "toy", standard(8, 0.5))


def test_every_declared_set_has_its_source() -> None:
    from equivbench.registry import resolve

    for spec in DATASETS:
        source = resolve(spec.factory)()
        assert source.path().suffix == ".npz"
    assert conformers_10k().path() != SHIPPED


def test_a_builder_keeps_what_its_grid_holds() -> None:
    builder = ConformerBuilder(DEV)
    line = np.array([[0.0, 0, 0], [5.9, 0, 0]])
    assert builder.add("C", np.array([1, 35]), line)
    assert not builder.add("C", np.array([1, 35]), line * 1.1)
    assert not builder.add("C", np.array([1, 15]), line)
    assert builder.left_out.total() == 2
    for name in ("validation", "test"):
        builder.add(name, np.array([1, 35]), line, name)
    table = builder.finish("here")
    assert table["pos"][:2].tolist() == [[-2950, 0, 0], [2950, 0, 0]]
    assert [ELEMENTS[c] for c in table["channel"][:2]] == ["H", "Br"]
    assert NUMBERS[table["channel"][1]] == 35


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_file_that_is_cut_short_is_one_clear_sentence(copy: Path, kept: float) -> None:
    content = copy.read_bytes()
    copy.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(FailedError, match=r"conformers-small\.npz .*cut short or changed"):
        load(copy, "conformers-small", SMALL)


def test_a_file_of_the_wrong_content_is_refused_even_with_the_right_checksum(copy: Path) -> None:
    import hashlib

    for arrays, complaint in (
        ({"pos": np.zeros(3)}, "not a conformer archive"),
        ({name: array[:-1] for name, array in np.load(SHIPPED).items()}, "disagree in length"),
    ):
        np.savez(copy, **arrays)
        card = {
            **json.loads(copy.with_suffix(".json").read_text()),
            "sha256": hashlib.sha256(copy.read_bytes()).hexdigest(),
        }
        copy.with_suffix(".json").write_text(json.dumps(card))
        with pytest.raises(FailedError, match=complaint):
            load(copy, "conformers-small", SMALL)


def test_declarations_and_checks_of_the_data_import_no_torch() -> None:
    code = (
        "import sys, equivbench.tasks.voxel.generate; from equivbench.tasks.voxel.sources import "
        "conformers_small; "
        "import equivbench.tasks.voxel.declarations; conformers_small().verify(); sys.exit('torch' "
        "in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_rdkit_the_large_set_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(
        FailedError, match=r"conformers-10k is generated with rdkit.*equivbench\[generate\]"
    ):
        conformers_10k().prepare()
    assert not conformers_10k().path().exists()
