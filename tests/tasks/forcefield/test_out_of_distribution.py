"""The force field's further test sets: each differs from the training data in what its name says
and in nothing else."""

import numpy as np
import pytest
import torch

from equivbench.errors import UsageError
from equivbench.registry import DATASETS
from equivbench.tasks.archives import read_card
from equivbench.tasks.base import SPLITS, TaskData
from equivbench.tasks.forcefield.sources import gfn2_hotter, gfn2_larger
from equivbench.tasks.forcefield.table import LAYOUT
from equivbench.tasks.forcefield.task import fit_reference
from equivbench.tasks.storage import RaggedTable

SOURCES = {"larger-molecules": gfn2_larger(), "hotter": gfn2_hotter()}


@pytest.fixture(scope="module")
def further() -> dict[str, RaggedTable]:
    return {name: LAYOUT.read(source.path())[0] for name, source in SOURCES.items()}


def heavy_atoms(table: RaggedTable) -> np.ndarray:
    return np.add.reduceat(table["z"] > 1, table.first, dtype=np.int64)


def rms_force(table: RaggedTable) -> float:
    return float(np.sqrt(np.mean(np.square(table["forces"], dtype=np.float64))))


def test_larger_molecules_are_larger_than_any_and_otherwise_alike(
    table: RaggedTable, further: dict[str, RaggedTable]
) -> None:
    larger = further["larger-molecules"]
    trained = np.repeat(table["split"] == SPLITS.index("train"), table.counts)
    assert larger.counts.min() > table.counts.max()
    assert heavy_atoms(larger).min() > heavy_atoms(table).max()
    assert set(larger["z"]) <= set(table["z"][trained])
    assert not set(larger["names"].tolist()) & set(table["names"].tolist())
    # The same temperatures: forces as large to the choice of molecules (10%, as in the set itself).
    assert rms_force(larger) == pytest.approx(rms_force(table), rel=0.1)


def test_hotter_conformations_are_of_the_test_molecules_and_feel_larger_forces(
    table: RaggedTable, further: dict[str, RaggedTable]
) -> None:
    hotter = further["hotter"]
    tested = np.unique(table["molecule"][table["split"] == SPLITS.index("test")])
    assert hotter["names"].tolist() == table["names"][tested].tolist()
    # In a harmonic well forces grow as the root of the temperature: from the mean over 100, 300 and
    # 500 K to 1,000 K by sqrt(10 / 3), less where wells widen.
    ratio = rms_force(hotter) / rms_force(table)
    assert ratio == pytest.approx((10 / 3) ** 0.5, rel=0.15)


@pytest.mark.parametrize("name", SOURCES)
def test_the_card_says_what_is_there(name: str, further: dict[str, RaggedTable]) -> None:
    source, table = SOURCES[name], further[name]
    card = read_card(source.path())
    assert card["sizes"] == {"train": 0, "validation": 0, "test": len(table.counts)}
    assert card["molecules"]["test"] == len(table.counts) == len(table["names"])
    assert card["sha256"] == source.verify() == DATASETS.get(source.name).checksums["1"]
    assert max(card["principal_axis_mean_abs"]) > 0.9
    assert source.path().stat().st_size < 150_000
    words = source.path().with_suffix(".md").read_text()
    assert card["sha256"] in words
    assert "canonicalised" in words


@pytest.mark.parametrize("name", SOURCES)
def test_an_isolated_molecule_feels_no_net_force(
    name: str, further: dict[str, RaggedTable]
) -> None:
    table = further[name]
    net = np.add.reduceat(table["forces"].astype(np.float64), table.first)
    assert np.abs(net).max() < 1e-5  # float32 rounding of 60 forces near 10 eV/A


@pytest.mark.parametrize("name", SOURCES)
def test_energies_are_referenced_as_those_that_were_trained_on(
    name: str, shipped: TaskData, table: RaggedTable, further: dict[str, RaggedTable]
) -> None:
    split, other, atoms = shipped.out_of_distribution[name], further[name], fit_reference(table)
    batch = split.collate(torch.tensor([3, 0]))
    molecules = np.split(other["z"], other.first[1:])
    expected = [other["energy"][i] - atoms[molecules[i]].sum() for i in (3, 0)]
    assert batch["energy"].tolist() == pytest.approx(expected, abs=1e-4)  # float32 of some 10 eV
    assert len(torch.unique(split.groups)) == len(split)


@pytest.mark.parametrize("name", SOURCES)
def test_it_is_a_split_by_name_and_a_data_set_with_the_training_split_of_the_other(
    name: str, shipped: TaskData
) -> None:
    alone = SOURCES[name].load()
    every = torch.arange(len(alone.test))
    assert alone.card.sizes == {**shipped.card.sizes, "test": len(alone.test)}
    assert alone.card.sha256 != shipped.card.sha256
    assert len(alone.train) == len(shipped.train)
    assert alone.out_of_distribution == {}
    named, own = shipped.split(name).collate(every), alone.test.collate(every)
    assert all(torch.equal(named[field], own[field]) for field in named)
    with pytest.raises(UsageError, match=f"did you mean {name}"):
        shipped.split(name[:-1])
