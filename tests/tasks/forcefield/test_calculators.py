"""ASE calculators as models of the force-field task."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("ase", reason="ASE is not installed (extra 'ase')")

from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.morse import MorsePotential
from molecules import molecules
from toy_calculators import Boasting, Field, SingleSprings, Springs, Unturned

import equivbench as eb
from equivbench.errors import EquivbenchWarning, FailedError, ModelError, UsageError
from equivbench.measure.measurement import Measurement
from equivbench.tasks.base import TaskData
from equivbench.tasks.forcefield.sources import crystals


def measured(calculator: Any, shipped: TaskData, rotations: int = 4) -> Measurement:
    return eb.measure_equivariance(
        eb.adapt(calculator),
        "forcefield",
        data=shipped,
        samples=6,
        rotations=rotations,
    )


def test_forces_are_those_of_each_molecule_alone() -> None:
    sample = molecules()
    model = eb.adapt(MorsePotential())
    found = model(z=sample["z"], pos=sample["pos"], batch=sample["batch"])["forces"]
    for number in range(4):
        own = sample["batch"] == number
        atoms = Atoms(sample["z"][own].numpy(), sample["pos"][own].numpy())
        assert np.array_equal(found[own].numpy(), MorsePotential().get_forces(atoms))
    assert copy.deepcopy(model).double().calculator is model.calculator


@pytest.mark.parametrize(
    ("calculator", "says"),
    [(Springs(), "it falls like rounding"), (SingleSprings(), "float32 inside")],
)
def test_equivariant_calculators_hold_in_their_own_precision(
    calculator: Any, says: str, shipped: TaskData
) -> None:
    found = measured(calculator, shipped)
    assert found.verdict is not None
    assert found.verdict.holds, found.verdict.reason
    assert says in found.verdict.reason
    assert found.share < 1e-10


def test_the_error_of_a_field_along_one_axis_is_found_and_averaged_away(shipped: TaskData) -> None:
    found = measured(Field(), shipped, rotations=24)
    assert found.verdict is not None
    assert found.verdict.holds is False
    averaged = measured(eb.average_over_rotations(Field(), "quadrature:4"), shipped, rotations=2)
    assert averaged.verdict is not None
    assert averaged.verdict.holds, averaged.verdict.reason
    # The same samples; 24 draws of six molecules leave some percent of the part that they average.
    assert averaged.total == pytest.approx(found.twirled, rel=0.1)


def test_molecules_of_other_elements_are_left_out(shipped: TaskData) -> None:
    # EMT has parameters for these of the set's elements.
    model = eb.adapt(EMT(), elements=["H", "C", "N", "O"])
    with pytest.warns(EquivbenchWarning, match=r"\d+ of 435 molecules have elements .* left out"):
        found = eb.measure_equivariance(model, "forcefield", data=shipped, samples=4, rotations=2)
    assert found.verdict is not None
    assert found.verdict.holds, found.verdict.reason
    with pytest.raises(FailedError, match="all molecules have elements"):
        eb.measure_equivariance(eb.adapt(EMT(), elements=["Cu"]), "forcefield", data=shipped)


class Odd(Springs):
    def get_forces(self, atoms: Atoms | None = None) -> Any:
        return super().get_forces(atoms)[:, :2]


def test_mistakes_are_one_sentence(unchecked_types: None) -> None:
    with pytest.raises(ModelError, match=r"a EMT is no torch.nn.Module; .* equivbench.adapt"):
        eb.measure_equivariance(EMT(), "forcefield")
    sample = molecules()
    inputs = {name: sample[name] for name in ("z", "pos", "batch")}
    with pytest.raises(FailedError, match=r"EMT failed on .*: NotImplementedError: .*S"):
        eb.adapt(EMT())(**{**inputs, "z": torch.full_like(inputs["z"], 16)})
    with pytest.raises(ModelError, match=r"Odd gives forces of shape \(9, 2\) .* for 9 atoms"):
        eb.adapt(Odd())(**inputs)
    with pytest.raises(UsageError, match="gives forces itself"):
        eb.adapt(EMT(), energy=True)
    with pytest.raises(UsageError, match="takes no option but energy and elements"):
        eb.adapt(EMT(), energy_unit="Hartree")
    with pytest.raises(UsageError, match="give an instance"):
        eb.adapt(EMT)


SOFT = {"sigma": 1.6, "epsilon": 0.1, "rc": 4.0}


def test_crystals_are_asked_about_in_their_cells_with_their_stress() -> None:
    batch = crystals().load().test.collate(torch.tensor([20, 71]))
    inputs = {name: batch[name] for name in ("z", "pos", "batch", "cell", "pbc")}
    found = eb.adapt(LennardJones(**SOFT))(**inputs)
    for number in range(2):
        own = batch["batch"] == number
        atoms = Atoms(
            batch["z"][own].numpy(),
            batch["pos"][own].double().numpy(),
            cell=batch["cell"][number].double().numpy(),
            pbc=True,
            calculator=LennardJones(**SOFT),
        )
        assert np.array_equal(found["forces"][own].numpy(), atoms.get_forces())
        assert np.array_equal(found["stress"][number].numpy(), atoms.get_stress(voigt=False))
    slab = {**inputs, "pbc": torch.tensor([[True, True, False], [True, True, True]])}
    assert set(eb.adapt(LennardJones(**SOFT))(**slab)) == {"forces"}
    assert set(eb.adapt(Boasting())(**inputs)) == {"forces"}


@pytest.mark.parametrize("of", ["forces", "stress"])
def test_a_calculator_that_leaves_the_cell_behind_is_caught(of: str) -> None:
    right, wrong = (
        eb.measure_equivariance(
            eb.adapt(calculator), "forcefield", data="crystals", of=of, group="o3", samples=24
        )
        for calculator in (LennardJones(**SOFT), Unturned(**SOFT))
    )
    assert right.verdict is not None
    assert right.verdict.holds, right.verdict.reason
    assert right.at_floor
    assert wrong.verdict is not None
    assert wrong.verdict.holds is False
    assert wrong.share > 0.05
