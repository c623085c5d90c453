"""Periodic systems: cells turn with the atoms, networks see the images of atoms, and forces and
stress of networks whose symmetry is known are judged as they must be."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from periodic_energies import CUTOFF, AlongAxis, AlongLattice, Images, Realigned, crystal_inputs
from torch import Tensor, nn

import equivbench as eb
from equivbench.errors import EquivbenchWarning, ModelError, UsageError
from equivbench.measure.measurement import Measurement
from equivbench.report.measurements import remarks
from equivbench.symmetry.rotations import random_rotations
from equivbench.symmetry.wrappers import wrap
from equivbench.tasks.base import TaskData
from equivbench.tasks.forcefield.crystals import CRYSTALS, perturbed
from equivbench.tasks.forcefield.elements import NUMBER_OF
from equivbench.tasks.forcefield.sources import crystals
from equivbench.tasks.forcefield.table import BOHR, HARTREE
from equivbench.tasks.forcefield.task import ForceField

REQUIRES = {"edge_index": CUTOFF, "cell": 1.0}


@pytest.fixture(scope="module")
def shipped() -> TaskData:
    return crystals().load()


def adapted(network: nn.Module, **said: Any) -> nn.Module:
    return eb.adapt(network.double(), energy=True, cutoff=CUTOFF, **said).eval()


def measured(network: nn.Module, data: TaskData, **asked: Any) -> Measurement:
    model = adapted(network) if isinstance(network, Images) else network
    return eb.measure_equivariance(model, "forcefield", data=data, **{"samples": 12, **asked})


def sample(which: int = 8, number: int = 3) -> dict[str, Tensor]:
    """One perturbed crystal in float64 (TiO2)."""
    crystal = CRYSTALS[which]
    pos, cell = (torch.from_numpy(each.astype(np.float64)) for each in perturbed(crystal, number))
    z = torch.tensor([NUMBER_OF[each] for each in crystal.elements])
    return {"z": z, "pos": pos, "cell": cell}


class Told(nn.Module):
    """Requires nothing by itself: whoever registers it says what it takes."""

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor, **cells: Tensor) -> dict[str, Tensor]:
        return {"forces": pos}


def test_who_is_given_no_cell_is_warned_and_nobody_else(shipped: TaskData) -> None:
    ask = partial(eb.measure_equivariance, Told(), "forcefield", samples=2, rotations=2)
    with pytest.warns(EquivbenchWarning, match="takes no cell"):
        ask(data=shipped)
    with warnings.catch_warnings():
        warnings.simplefilter("error", EquivbenchWarning)
        ask(data=shipped, requires={"cell": 1.0})
        ask()
    with pytest.raises(UsageError, match="is empty"):
        ask(data=shipped, split="train")


def test_the_cell_and_the_stress_turn_with_the_positions(
    task: ForceField, shipped: TaskData
) -> None:
    batch = shipped.test.collate(torch.arange(0, 72, 5))
    count = len(batch["cell"])
    turns = random_rotations(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turned = task.rotate(batch, turns, batch["batch"])
    expected = batch["cell"].double() @ turns.mT
    assert torch.allclose(turned["cell"].double(), expected, atol=2e-6)
    stress = turns @ batch["stress"].double() @ turns.mT
    assert torch.allclose(turned["stress"].double(), stress, atol=1e-8)
    assert torch.equal(turned["pbc"], batch["pbc"])
    # Lengths, angles and fractional coordinates are what they were.
    before, after = (
        torch.linalg.solve(
            each["cell"].double().mT[batch["batch"]], each["pos"].double()[:, :, None]
        )
        for each in (batch, turned)
    )
    assert torch.allclose(before, after, atol=2e-6)


def test_every_tensor_of_a_crystal_is_declared_with_its_type(
    task: ForceField, shipped: TaskData
) -> None:
    inputs, targets = task.assemble(shipped.test.collate(torch.arange(4)), {}, REQUIRES)
    declared = {field.name: field for field in task.fields}
    assert {"cell", "pbc", "cell_shifts"} <= set(inputs)
    assert set(targets) == {"forces", "energy", "stress"}
    for name, tensor in {**inputs, **targets}.items():
        assert str(tensor.dtype) == f"torch.{declared[name].dtype}"
        assert tensor.ndim == len(declared[name].shape)


def test_cells_are_given_where_there_are_some_and_where_they_are_asked_for(
    task: ForceField, shipped: TaskData
) -> None:
    batch = shipped.test.collate(torch.arange(4))
    assert list(task.assemble(batch, {}, {})[0]) == ["z", "pos", "batch"]
    plain = {name: batch[name] for name in ("z", "pos", "batch", "forces", "energy")}
    without, with_cells = (
        task.assemble(plain, {}, requires) for requires in ({"edge_index": CUTOFF}, REQUIRES)
    )
    assert list(without[0]) == list(with_cells[0]) == ["z", "pos", "batch", "edge_index"]
    assert torch.equal(without[0]["edge_index"], with_cells[0]["edge_index"])
    assert set(without[1]) == {"forces", "energy"}


@pytest.mark.parametrize("of", ["forces", "stress"])
@pytest.mark.parametrize("network", [Images, AlongLattice])
def test_an_energy_of_the_crystal_alone_is_equivariant(
    network: type[Images], of: str, shipped: TaskData
) -> None:
    found = measured(network(), shipped, of=of, group="o3")
    assert found.verdict is not None
    assert found.verdict.holds, found.verdict.reason
    assert found.at_floor
    assert found.unit == {"forces": "(eV/A)^2", "stress": "(eV/A^3)^2"}[of]
    assert "stress" in found.errors


@pytest.mark.parametrize("of", ["forces", "stress"])
@pytest.mark.parametrize(("network", "least"), [(AlongAxis, 1e-3), (Realigned, 0.1)])
def test_one_that_knows_an_axis_or_leaves_the_cell_behind_is_caught(
    network: type[Images], least: float, of: str, shipped: TaskData
) -> None:
    found = measured(network(), shipped, of=of)
    assert found.verdict is not None
    assert found.verdict.holds is False
    assert found.share > least
    low, high = found.interval()
    assert 0 < low < found.share < high


def test_the_stress_is_measured_beside_the_forces(shipped: TaskData) -> None:
    found = measured(AlongAxis(), shipped)
    alone = measured(AlongAxis(), shipped, of="stress")
    beside = found.beside["stress"]
    assert beside.unit == alone.unit
    assert beside.floor is None
    for quantity in ("total", "twirled", "equivariance", "share"):
        # The same samples under the same rotations.
        assert getattr(beside, quantity) == pytest.approx(getattr(alone, quantity), rel=1e-9)
    assert beside.interval() == pytest.approx(alone.interval(), rel=1e-6)
    assert found.errors["stress"] == pytest.approx(beside.total, rel=1e-6)
    (said,) = remarks(found)
    assert said.startswith("stress beside it: loss ")
    assert alone.beside == {}


@pytest.mark.parametrize("of", ["forces", "stress"])
def test_an_average_over_the_cube_group_turns_the_cell_and_takes_the_stress_back(
    of: str, task: ForceField, shipped: TaskData
) -> None:
    averaged = wrap("twirl-octahedral", adapted(AlongAxis()), task.fields, task.index_field)
    found = measured(averaged, shipped, of=of, group="octahedral", samples=4)
    assert found.verdict is not None
    assert found.verdict.holds, found.verdict.reason
    assert measured(AlongAxis(), shipped, of=of, group="octahedral", samples=4).share > 1e-4


def test_a_stress_is_split_by_its_irreps(shipped: TaskData) -> None:
    parts = measured(AlongAxis(), shipped, of="stress", by="component")
    assert set(parts.by) == {"0e", "2e"}
    for quantity in ("total", "equivariance"):
        whole = sum(getattr(each, quantity) for each in parts.by.values())
        assert whole == pytest.approx(getattr(parts, quantity), rel=1e-9)


@pytest.mark.slow
def test_a_stress_is_split_by_the_irreps_of_the_group(shipped: TaskData) -> None:
    spectrum = measured(
        AlongAxis(), shipped, of="stress", by="irrep", rotations="quadrature:4", samples=1
    )
    # The energy is of second degree in the axis as the crystal sees it, and so is its stress.
    assert spectrum.by["l=2"].equivariance == pytest.approx(spectrum.equivariance, rel=1e-6)
    assert spectrum.share > 1e-3


def test_a_network_that_takes_no_cell_is_told_so(shipped: TaskData) -> None:
    class Alone(nn.Module):
        def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
            return {"forces": 0.1 * pos}

    with pytest.warns(EquivbenchWarning, match="sees the atoms of each cell as a molecule"):
        eb.measure_equivariance(Alone(), "forcefield", data=shipped, samples=4, rotations=2)


def test_forces_and_stress_are_derivatives_of_the_energy() -> None:
    model, given = adapted(Images()), sample()

    def energy(pos: Tensor, cell: Tensor) -> float:
        return float(model(**crystal_inputs(given["z"], pos, cell))["energy"])

    pos, cell = given["pos"], given["cell"]
    found = model(**crystal_inputs(given["z"], pos, cell))
    generator = torch.Generator().manual_seed(0)
    shift = torch.randn(pos.shape, generator=generator, dtype=pos.dtype)
    strain = torch.randn(3, 3, generator=generator, dtype=pos.dtype)
    stretch, step = strain + strain.T, 1e-5
    rise = energy(pos + step * shift, cell) - energy(pos - step * shift, cell)
    # Central differences: rounding 1e-15 of 100 over 2e-5.
    assert -rise / (2 * step) == pytest.approx(float((found["forces"] * shift).sum()), abs=1e-6)
    up, down = (torch.eye(3).double() + sign * step * stretch for sign in (1, -1))
    work = (energy(pos @ up, cell @ up) - energy(pos @ down, cell @ down)) / (2 * step)
    density = float((found["stress"][0] * stretch).sum())
    assert work / float(torch.linalg.det(cell)) == pytest.approx(density, abs=1e-7)
    assert torch.equal(found["stress"], found["stress"].mT)


def test_wrapping_atoms_and_repeating_the_cell_change_nothing() -> None:
    model, given = adapted(Images()), sample()
    z, pos, cell = given["z"], given["pos"], given["cell"]
    found = model(**crystal_inputs(z, pos, cell))
    steps = torch.zeros(len(pos), 3, dtype=torch.float64)
    steps[0], steps[1] = torch.tensor([1.0, -2, 0]), torch.tensor([0.0, 3, 1])
    again = model(**crystal_inputs(z, pos + steps @ cell, cell))
    both, long = torch.cat([pos, pos + cell[1]]), cell * torch.tensor([[1.0], [2], [1]])
    double = model(**crystal_inputs(z.repeat(2), both, long))
    for other in (again["forces"], double["forces"][: len(pos)], double["forces"][len(pos) :]):
        assert torch.allclose(other, found["forces"], atol=1e-12)
    for other in (again, double):
        assert torch.allclose(other["stress"], found["stress"], atol=1e-13)


KNOWN = sorted({NUMBER_OF[each] for crystal in CRYSTALS for each in crystal.elements})


class AsPackage(nn.Module):
    """The forward of a package that is told of cells, on the same energy."""

    def __init__(self, package: str) -> None:
        super().__init__()
        self.package, self.type_names = package, KNOWN
        self.atomic_numbers = torch.tensor(KNOWN)

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.package == "mace":
            source, target = data["edge_index"]
            pos, batch = data["positions"], data["batch"]
            vectors = pos[target] - pos[source] + data["shifts"]
            cell = data["cell"].reshape(-1, 3, 3)
            moved = torch.einsum("ek,eki->ei", data["unit_shifts"], cell[batch[target]])
            assert torch.allclose(moved, data["shifts"])
            vectors, z = -vectors, self.atomic_numbers[data["node_attrs"].argmax(1)]
        elif self.package == "nequip":
            target, source = data["edge_index"]
            pos, batch = data["pos"], data["batch"]
            vectors = pos[source] - pos[target]
            vectors = vectors + torch.einsum(
                "ek,eki->ei", data["edge_cell_shift"], data["cell"][batch[target]]
            )
            z = self.atomic_numbers[data["atom_types"]]
        else:
            target, source = data["_idx_i"], data["_idx_j"]
            pos, batch, z = data["_positions"], data["_idx_m"], data["_atomic_numbers"]
            vectors = pos[source] - pos[target] + data["_offsets"]
            assert data["_pbc"].all()
        left = 1 - vectors.square().sum(1) / CUTOFF**2
        by_edge = (1 + 0.02 * (z[source] + z[target]).to(pos)) * left**3
        energy = pos.new_zeros(int(batch[-1]) + 1).index_add(0, batch[target], by_edge)
        return {"energy": energy, "total_energy": energy}


@pytest.mark.parametrize("package", ["mace", "nequip", "schnetpack"])
def test_known_packages_are_given_cells_as_they_want_them(package: str) -> None:
    given = sample()
    inputs = crystal_inputs(given["z"], given["pos"], given["cell"])
    network = AsPackage(package).double().eval()
    model = eb.adapt(network, energy=True, convention=package, cutoff=CUTOFF).eval()
    assert model.requires == REQUIRES
    expected = adapted(Images())(**inputs)
    found = model(**inputs)
    for name in ("energy", "forces", "stress"):
        assert torch.allclose(found[name], expected[name], atol=1e-10)


class OwnStress(nn.Module):
    """Gives forces and a stress of its own, in the units of another."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor, cell: Tensor | None = None) -> Any:
        found = {"forces": torch.ones_like(pos)}
        return found if cell is None else {**found, "stress": torch.ones(self.shape)}


class NoStress(nn.Module):
    requires = {"cell": 1.0}

    def forward(
        self, z: Tensor, pos: Tensor, batch: Tensor, cell: Tensor, pbc: Tensor
    ) -> dict[str, Tensor]:
        return {"forces": 0.1 * pos}


def test_a_stress_of_its_own_is_taken_as_it_is() -> None:
    given = sample()
    inputs = crystal_inputs(given["z"], given["pos"], given["cell"])
    some = {name: inputs[name] for name in ("z", "pos", "batch", "cell", "pbc")}
    model = eb.adapt(OwnStress((1, 9)), energy_unit="Hartree", length_unit="Bohr")
    found = model(**some)["stress"]
    assert torch.allclose(found, torch.full((1, 3, 3), HARTREE / BOHR**3, dtype=found.dtype))
    slab = {**some, "pbc": torch.tensor([[True, True, False]])}
    assert "stress" not in model(**slab)
    molecule = {name: inputs[name] for name in ("z", "pos", "batch")}
    assert set(model(**molecule)) == {"forces"}
    with pytest.raises(ModelError, match=r"a stress of shape \(6,\) for 1 structures"):
        eb.adapt(OwnStress((6,)))(**some)


def test_what_cannot_be_judged_is_a_usage_error(task: ForceField, shipped: TaskData) -> None:
    with pytest.raises(UsageError, match="no 'stress' to compare with, only forces and energy"):
        eb.measure_equivariance(adapted(Images()), "forcefield", of="stress", samples=2)
    with pytest.raises(UsageError, match=r"unknown output of task forcefield 'stres'.*stress"):
        task.judged_on("stres")
    with pytest.raises(UsageError, match="the data set ca-small is of task flow, not forcefield"):
        eb.measure_equivariance(adapted(Images()), "forcefield", data="ca-small")
    with pytest.raises(ModelError, match="with 'stress' and 'forces'"):
        measured(NoStress(), shipped, of="stress")
