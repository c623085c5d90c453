"""The shipped crystals: they are those of the textbooks, their labels are what the card says, and
they are made again bit for bit."""

from pathlib import Path

import numpy as np
import pytest
import torch

from equivbench.kernels.periodic_neighbours import periodic_edges_within
from equivbench.tasks.archives import read_card
from equivbench.tasks.base import TaskData
from equivbench.tasks.forcefield.crystals import (
    CRYSTALS,
    EACH,
    PERTURBATIONS,
    Crystal,
    build,
    combined,
    labelled,
    perturbed,
)
from equivbench.tasks.forcefield.elements import SYMBOLS
from equivbench.tasks.forcefield.sources import crystals
from equivbench.tasks.forcefield.table import PERIODIC_LAYOUT
from equivbench.tasks.storage import RaggedTable

BY_NAME = {each.name: each for each in CRYSTALS}
BONDS = {
    ("Cu", "Cu", "Cu"): (12, 2.556),
    ("Fe", "Fe", "Fe"): (8, 2.482),
    ("Mg", "Mg", "Mg"): (12, 3.203),
    ("Si", "Si", "Si"): (4, 2.352),
    ("GaAs", "Ga", "As"): (4, 2.448),
    ("NaCl", "Na", "Cl"): (6, 2.820),
    ("MgO", "Mg", "O"): (6, 2.106),
    ("CaF2", "Ca", "F"): (8, 2.366),
    ("CaF2", "F", "Ca"): (4, 2.366),
    ("TiO2", "Ti", "O"): (6, 1.959),
    ("TiO2", "O", "Ti"): (3, 1.959),
    ("SrTiO3", "Sr", "O"): (12, 2.761),
    ("SrTiO3", "Ti", "O"): (6, 1.953),
    ("SiO2", "Si", "O"): (4, 1.609),
    ("SiO2", "O", "Si"): (2, 1.609),
    ("Al2O3", "Al", "O"): (6, 1.913),
    ("Al2O3", "O", "Al"): (4, 1.913),
}
"""(neighbours of the other kind, their mean distance in A) of each atom of one kind, as textbooks
give them."""


@pytest.fixture(scope="module")
def table() -> RaggedTable:
    return PERIODIC_LAYOUT.read(crystals().path())[0]


@pytest.fixture(scope="module")
def shipped() -> TaskData:
    return crystals().load()


def perfect(crystal: Crystal) -> tuple[np.ndarray, np.ndarray]:
    cell = np.array(crystal.lattice)
    return combined(np.array(crystal.fractions), cell), cell


@pytest.mark.parametrize(("name", "of", "to"), BONDS)
def test_atoms_have_the_neighbours_that_textbooks_say(name: str, of: str, to: str) -> None:
    crystal = BY_NAME[name]
    pos, cell = perfect(crystal)
    number, length = BONDS[name, of, to]
    # Short of the next shell, which in iron is 1.15 times as far.
    edges, shifts = periodic_edges_within(
        torch.from_numpy(pos),
        torch.zeros(len(pos), dtype=torch.int64),
        torch.from_numpy(cell)[None],
        torch.ones(1, 3, dtype=torch.bool),
        1.12 * length,
    )
    (source, target), moved = edges.numpy(), shifts.numpy() @ cell
    distance = np.linalg.norm(pos[source] + moved - pos[target], axis=1)
    elements = np.array(crystal.elements)
    for atom in np.flatnonzero(elements == of):
        own = (target == atom) & (elements[source] == to)
        assert own.sum() == number
        assert distance[own].mean() == pytest.approx(length, abs=2e-3)


@pytest.mark.parametrize("crystal", CRYSTALS, ids=lambda crystal: crystal.name)
def test_forces_and_stress_are_derivatives_of_the_energy(crystal: Crystal) -> None:
    pos, cell = (each.astype(np.float64) for each in perturbed(crystal, 3))
    _, forces, stress = labelled(crystal, pos, cell)
    step = 2e-5
    generator = np.random.default_rng(0)
    shift = generator.standard_normal(pos.shape)
    strain = generator.standard_normal((3, 3))
    strain = strain + strain.T
    up, down = (labelled(crystal, pos + sign * step * shift, cell)[0] for sign in (1.0, -1.0))
    # Central differences err by step^2 times third derivatives, of strains some 10,000 eV.
    assert -(up - down) / (2 * step) == pytest.approx((forces * shift).sum(), rel=1e-5, abs=1e-5)
    up, down = (
        labelled(crystal, *(each @ (np.eye(3) + sign * step * strain) for each in (pos, cell)))[0]
        for sign in (1.0, -1.0)
    )
    work = (up - down) / (2 * step) / abs(np.linalg.det(cell))
    assert work == pytest.approx((stress * strain).sum(), rel=1e-5, abs=1e-6)
    assert np.allclose(stress, stress.T, rtol=0, atol=1e-15)
    assert np.abs(forces.sum(0)).max() < 1e-12


@pytest.mark.parametrize("crystal", CRYSTALS, ids=lambda crystal: crystal.name)
def test_a_textbook_structure_has_no_pressure(crystal: Crystal) -> None:
    stress = labelled(crystal, *perfect(crystal))[2]
    assert abs(np.trace(stress)) < 1e-12


def test_they_are_made_again_bit_for_bit(tmp_path: Path, table: RaggedTable) -> None:
    again = PERIODIC_LAYOUT.read(build(tmp_path / "crystals.npz"))[0]
    for name, column in table.columns.items():
        assert np.array_equal(column, again[name]), name


def test_the_file_holds_what_its_card_says(table: RaggedTable) -> None:
    card = read_card(crystals().path())
    number = EACH * len(PERTURBATIONS)
    assert card["sizes"] == {"train": 0, "validation": 0, "test": number * len(CRYSTALS)}
    assert card["crystals"]["test"] == len(CRYSTALS)
    assert crystals().path().stat().st_size < 20_000
    assert "not DFT but a pair potential" in card["recipe"]["labels"]
    assert table["names"].tolist() == [each.name.encode() for each in CRYSTALS]
    assert table["pbc"].all()
    for row, (first, count) in enumerate(zip(table.first, table.counts, strict=True)):
        crystal = CRYSTALS[row // number]
        elements = tuple(SYMBOLS[each - 1] for each in table["z"][first : first + count])
        assert (crystal.elements, row // number) == (elements, table["crystal"][row])


def test_a_batch_has_the_cell_of_each_structure(shipped: TaskData, table: RaggedTable) -> None:
    batch = shipped.test.collate(torch.tensor([40, 3]))
    for name in ("cell", "stress", "pbc"):
        assert np.array_equal(batch[name].numpy(), table[name][[40, 3]])
    assert len(shipped.train) == 0
    assert len(torch.unique(shipped.test.groups)) == len(CRYSTALS)
    # The reference energies of a set without a training split are 0.
    assert np.allclose(batch["energy"].numpy(), table["energy"][[40, 3]])
