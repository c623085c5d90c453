"""Models in metatomic's format as models of the force-field task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("metatomic_ase", reason="metatomic is not installed (extra 'metatomic')")

from ase.build import molecule
from metatomic_ase import SymmetrizedCalculator
from molecules import molecules
from pair_energies import pair_forces
from toy_metatomic import pair_model, saved

import equivbench as eb
from equivbench.errors import FailedError
from equivbench.execution.loading import find_model
from equivbench.tasks.forcefield.foreign.calculators import metatomic_calculator


def test_a_model_and_its_file_give_the_forces_of_the_energy(tmp_path: Path) -> None:
    sample = molecules()
    inputs = {name: sample[name] for name in ("z", "pos", "batch")}
    forces = pair_forces(**inputs)
    found = find_model(f"metatomic:{saved(tmp_path)}")
    assert found.task == "forcefield"
    for model in (eb.adapt(pair_model()), found.model):
        assert torch.allclose(model(**inputs)["forces"], forces, atol=1e-12)


def test_the_average_over_rotations_is_that_of_metatomic() -> None:
    atoms = molecule("CH3CH2OH", cell=[20.0, 21.0, 22.0], pbc=True)
    atoms.center()  # theirs wraps atoms into the cell, and the model looks at no images
    base = metatomic_calculator(pair_model(0.7))
    atoms.calc = SymmetrizedCalculator(base, l_max=4, store_rotational_std=True)
    forces, energy, stress = atoms.get_forces(), atoms.get_potential_energy(), atoms.get_stress()
    spread = np.linalg.norm(atoms.calc.results["forces_rot_std"], axis=1)
    atoms.calc = eb.average_over_rotations(base, "quadrature:4", group="o3")
    # Two quadratures, both exact at the degree of the square of forces of a field, 4.
    assert np.allclose(atoms.get_forces(), forces, atol=1e-10)
    assert np.allclose(atoms.get_stress(), stress, atol=1e-10)
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-10)
    assert np.allclose(atoms.calc.results["forces_spread"], spread, atol=1e-10)
    assert spread.min() > 0.1


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match=r"none.pt is not there"):
        find_model(f"metatomic:{tmp_path / 'none.pt'}")
    (tmp_path / "text.pt").write_text("no model")
    with pytest.raises(FailedError, match=r"text.pt cannot be used as a metatomic model"):
        find_model(f"metatomic:{tmp_path / 'text.pt'}")
    with pytest.raises(FailedError, match="cannot be used as a metatomic model"):
        eb.adapt(pair_model(), energy=False)  # it predicts no forces
