"""The shipped GFN2-xTB set: what its card says is true of it, its splits do not leak, and damage is
noticed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from equivbench.errors import FailedError, UsageError
from equivbench.tasks import storage
from equivbench.tasks.archives import read_card
from equivbench.tasks.base import SPLITS, TaskData
from equivbench.tasks.forcefield import task
from equivbench.tasks.forcefield.sources import gfn2_small
from equivbench.tasks.forcefield.task import fit_reference, load
from equivbench.tasks.splits import with_fraction
from equivbench.tasks.storage import RaggedTable, split_of


def referenced(table: RaggedTable) -> np.ndarray:
    """[samples] eV: total energies less those of the atoms."""
    reference = fit_reference(table)
    atoms = np.split(table["z"], table.first[1:])
    return table["energy"] - [reference[z].sum() for z in atoms]


@pytest.mark.parametrize("part", [1, 7, 500])
def test_a_table_read_in_parts_gives_what_one_read_at_once_gives(
    table: RaggedTable, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    assert len(list(table.parts())) == 1
    whole = fit_reference(table)
    energy = task.referenced(table, whole)
    monkeypatch.setattr(storage, "_PART", part)
    parts = list(table.parts())
    assert len(parts) > 1
    for ends, all_of_them in ((0, table.counts), (1, table["z"])):
        assert np.array_equal(
            np.concatenate([np.arange(len(all_of_them))[each[ends]] for each in parts]),
            np.arange(len(all_of_them)),
        )
    for samples, items in parts:
        assert table.counts[samples].sum() == items.stop - items.start
        assert items.stop - items.start <= part or samples.stop - samples.start == 1
    assert np.array_equal(fit_reference(table), whole)
    assert np.array_equal(task.referenced(table, whole), energy)
    assert table.broken() == ""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the shipped set, to be damaged."""
    for suffix in (".npz", ".json"):
        shutil.copy(gfn2_small().path().with_suffix(suffix), tmp_path)
    return tmp_path / "gfn2-small.npz"


def test_no_molecule_is_in_two_splits(table: RaggedTable) -> None:
    held = [set(table["molecule"][table["split"] == code].tolist()) for code in range(3)]
    assert sum(map(len, held)) == len(set.union(*held)) == len(table["names"])
    assert len(set(table["names"].tolist())) == len(table["names"])


def test_each_molecule_is_in_the_split_that_its_name_draws(table: RaggedTable) -> None:
    for molecule, code in zip(table["molecule"], table["split"], strict=True):
        assert SPLITS[code] == split_of(table["names"][molecule].decode())


def test_splits_are_large_enough_and_as_the_card_says(
    shipped: TaskData, table: RaggedTable
) -> None:
    card = read_card(gfn2_small().path())
    assert (
        card["sizes"]
        == {name: len(shipped.split(name)) for name in SPLITS}
        == dict(shipped.card.sizes)
    )
    assert card["molecules"] == {name: int(shipped.split(name).groups.max()) + 1 for name in SPLITS}
    assert card["molecules"]["test"] >= 120
    assert card["molecules"]["validation"] >= 60
    assert card["sha256"] == shipped.card.sha256
    assert card["atoms"] == len(table["z"])
    assert f"SHA-256 `{card['sha256']}`" in gfn2_small().path().with_suffix(".md").read_text()
    assert gfn2_small().path().stat().st_size < 1.5e6


def test_molecules_are_what_the_recipe_allows(table: RaggedTable) -> None:
    assert table["n_atoms"].min() >= 10
    assert table["n_atoms"].max() <= 40
    assert set(np.unique(table["z"])) <= {1, 6, 7, 8, 9, 15, 16, 17, 35, 53}
    first = table["n_atoms"].cumsum() - table["n_atoms"]
    nearest = []
    for start, n in zip(first, table["n_atoms"], strict=True):
        pos = table["pos"][start : start + n].astype(np.float64)
        distances = np.linalg.norm(pos[:, None] - pos[None], axis=-1) + np.diag(np.full(n, np.inf))
        nearest.append(distances.min())
    # The shortest bond of such molecules, O-H, is .96 A at rest and swings by about .15 A at 500 K
    # (H mass 4).
    assert min(nearest) > 0.7


def test_an_isolated_molecule_feels_no_net_force_and_no_net_torque(table: RaggedTable) -> None:
    owner = np.repeat(np.arange(len(table["n_atoms"])), table["n_atoms"])
    torque = np.cross(table["pos"].astype(np.float64), table["forces"])
    # Analytical gradients: the net force is float32 rounding of up to 40 forces near 10 eV/A (8e-7
    # seen); the torque is that times arms of 10 A, and the labels' own 1.5e-4 eV.
    for rows, tolerance in ((table["forces"], 1e-5), (torque, 1e-3)):
        net = np.zeros((len(table["n_atoms"]), 3))
        np.add.at(net, owner, rows.astype(np.float64))
        assert np.abs(net).max() < tolerance


def test_forces_have_the_size_that_the_recipe_gave_before(table: RaggedTable) -> None:
    norms = np.linalg.norm(table["forces"], axis=1)
    # Measured on another draw of the same recipe (1.00; 1.23, 2.75, 4.43 eV/A): 10% covers the
    # choice of molecules.
    assert np.sqrt(np.mean(table["forces"].astype(np.float64) ** 2)) == pytest.approx(1.00, rel=0.1)
    assert np.quantile(norms, [0.5, 0.9, 0.99]) == pytest.approx([1.23, 2.75, 4.43], rel=0.1)


def test_collate_gathers_the_samples_one_after_another(
    shipped: TaskData, table: RaggedTable
) -> None:
    indices = torch.tensor([7, 2, 2, 30])
    batch = shipped.validation.collate(indices)
    samples = np.flatnonzero(table["split"] == SPLITS.index("validation"))[indices]
    first = table["n_atoms"].cumsum() - table["n_atoms"]
    spans = [slice(first[s], first[s] + table["n_atoms"][s]) for s in samples]
    for name in ("z", "pos", "forces"):
        assert np.array_equal(
            batch[name].numpy(), np.concatenate([table[name][span] for span in spans])
        )
    assert torch.bincount(batch["batch"]).tolist() == table["n_atoms"][samples].tolist()
    assert batch["batch"].diff().min() >= 0
    assert np.allclose(batch["energy"].numpy(), referenced(table)[samples])


def test_energies_are_referenced_on_the_training_split_alone(table: RaggedTable) -> None:
    train = table["split"] == SPLITS.index("train")
    energy = referenced(table)
    counts = np.zeros((len(table["n_atoms"]), 256))
    np.add.at(
        counts, (np.repeat(np.arange(len(table["n_atoms"])), table["n_atoms"]), table["z"]), 1
    )
    # Least squares leaves residuals orthogonal to the composition; sums of 1e4 values near 1 eV,
    # float64 lstsq of -1e3 eV.
    assert np.abs(counts[train].T @ energy[train]).max() < 1e-3
    assert energy[train].std() < 2.0 < table["energy"].std()
    columns = {**table.columns, "energy": table["energy"] + np.where(train, 0.0, 5.0)}
    changed = RaggedTable(table.layout, columns)
    assert np.array_equal(fit_reference(changed), fit_reference(table))


def test_fractions_of_the_data_are_nested_and_cut_training_molecules_only(
    shipped: TaskData,
) -> None:
    kept = {fraction: with_fraction(shipped, fraction) for fraction in (0.1, 0.5)}
    molecules = {}
    for fraction, data in kept.items():
        assert data.test is shipped.test
        assert data.card.sizes["train"] == len(data.train)
        assert data.card.sizes["fraction"] == 1000 * fraction
        assert int(data.train.groups.max()) + 1 == round(
            fraction * (int(shipped.train.groups.max()) + 1)
        )
        # Positions tell conformations apart.
        molecules[fraction] = set(
            map(tuple, data.train.collate(torch.arange(len(data.train)))["pos"].tolist())
        )
    assert molecules[0.1] < molecules[0.5]
    assert with_fraction(shipped, 1.0) is shipped


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5, float("nan")])
def test_absurd_fractions_are_usage_errors(shipped: TaskData, fraction: float) -> None:
    with pytest.raises(UsageError, match="fraction"):
        with_fraction(shipped, fraction)


def test_a_copy_loads(copy: Path, shipped: TaskData) -> None:
    assert load(copy).card == shipped.card


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_file_that_is_cut_short_is_one_clear_sentence(copy: Path, kept: float) -> None:
    content = copy.read_bytes()
    copy.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(
        FailedError, match=r"gfn2-small\.npz .*cut short or changed.*data prepare gfn2-small"
    ):
        load(copy)


def test_a_changed_byte_is_noticed(copy: Path) -> None:
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    with pytest.raises(FailedError, match="changed"):
        load(copy)


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_a_missing_file_is_named(copy: Path, suffix: str) -> None:
    copy.with_suffix(suffix).unlink()
    with pytest.raises(FailedError, match=f"{suffix} cannot be read"):
        load(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sha256": 1}'])
def test_a_broken_card_is_named(copy: Path, text: str) -> None:
    copy.with_suffix(".json").write_text(text)
    with pytest.raises(FailedError, match=r"gfn2-small\.json is not"):
        load(copy)


@pytest.mark.parametrize("arrays", [{"z": np.zeros(3)}, {"pos": np.array([{}], dtype=object)}])
def test_a_file_of_the_wrong_content_is_refused_even_with_the_right_checksum(
    copy: Path, arrays: dict[str, np.ndarray]
) -> None:
    import hashlib

    np.savez(copy, **arrays)
    card = {
        **json.loads(copy.with_suffix(".json").read_text()),
        "sha256": hashlib.sha256(copy.read_bytes()).hexdigest(),
    }
    copy.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(FailedError, match="not a force-field archive"):
        load(copy)


def test_declarations_and_checks_of_the_data_import_no_torch() -> None:
    code = (
        "import sys, equivbench.tasks.forcefield.generate; from "
        "equivbench.tasks.forcefield.sources import gfn2_small; "
        "import equivbench.tasks.forcefield.declarations; gfn2_small().verify(); sys.exit('torch' "
        "in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
