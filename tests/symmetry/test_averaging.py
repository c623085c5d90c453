"""The ASE calculator that averages over rotations: closed forms of a field along one axis, the
calculator itself where that is equivariant, and what its spread says of a mean of few draws."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("ase", reason="ASE is not installed (extra 'ase')")

from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from toy_calculators import STRENGTH, Field

from equivbench.errors import UsageError
from equivbench.symmetry.averaging import average_over_rotations


def ethanol(calculator: object) -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.calc = calculator
    return atoms


def away(atoms: Atoms) -> np.ndarray:
    return atoms.get_positions() - atoms.get_positions().mean(0)


@pytest.mark.parametrize("group", ["so3", "o3"])
def test_a_quadrature_gives_the_closed_form(group: str) -> None:
    atoms = ethanol(average_over_rotations(Field(), "quadrature:4", group=group))
    length = np.linalg.norm(away(atoms), axis=1)
    assert np.allclose(atoms.get_forces(), -2 * STRENGTH / 3 * away(atoms), atol=1e-12)
    assert atoms.get_potential_energy() == pytest.approx(STRENGTH / 3 * float((length**2).sum()))
    spread = atoms.calc.get_property("forces_spread", atoms)
    assert np.allclose(spread, 2 * STRENGTH * np.sqrt(2) / 3 * length, atol=1e-12)
    # A turn leaves the trace alone.
    stress = atoms.get_stress(voigt=False)
    assert np.trace(stress) == pytest.approx(atoms.get_potential_energy())
    assert atoms.calc.export_properties()["energy"] == atoms.get_potential_energy()


def test_draws_are_off_by_about_the_spread_over_the_root_of_their_number() -> None:
    atoms = ethanol(None)
    exact = -2 * STRENGTH / 3 * away(atoms)
    ratios = []
    for seed in range(20):
        atoms.calc = average_over_rotations(Field(), 6, seed=seed)
        error = np.square(atoms.get_forces() - exact).sum()
        ratios.append(error / np.square(atoms.calc.results["forces_spread"]).sum())
    # The atoms share their rotations, so 20 seeds are some 20 independent samples.
    assert np.mean(ratios) == pytest.approx(1 / 6, rel=0.5)


@pytest.mark.parametrize("group", ["so3", "o3", "octahedral"])
def test_an_equivariant_calculator_is_what_it_was(group: str) -> None:
    atoms = ethanol(LennardJones())
    plain = atoms.get_forces(), atoms.get_potential_energy()
    atoms.calc = average_over_rotations(LennardJones(), 3, group=group)
    assert np.allclose(atoms.get_forces(), plain[0], rtol=1e-9, atol=1e-9)
    assert atoms.get_potential_energy() == pytest.approx(plain[1])
    # Rounding, of forces of up to 1e2 eV/A.
    assert atoms.calc.results["forces_spread"].max() < 1e-9 * np.abs(plain[0]).max()


def test_a_crystal_turns_with_its_cell() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=0)
    atoms.set_constraint(FixAtoms([0]))
    atoms.calc = EMT()
    plain = atoms.get_forces(), atoms.get_stress()
    atoms.calc = average_over_rotations(EMT(), 2, seed=1)
    assert np.allclose(atoms.get_forces(), plain[0], atol=1e-9)
    assert np.allclose(atoms.get_stress(), plain[1], atol=1e-9)
    assert atoms.get_forces()[0].tolist() == [0, 0, 0]  # constraints act on the average
    assert atoms.calc.results["energy_spread"] < 1e-9


def test_fixed_draws_are_repeated_and_redrawn_ones_are_not() -> None:
    atoms, moved = ethanol(None), ethanol(None)
    moved.rattle(1e-9)
    for redraw in (False, True):
        calculator = average_over_rotations(Field(), 2, redraw=redraw)
        first, again = (calculator.get_forces(each) for each in (atoms, moved))
        assert np.allclose(first, again, atol=1e-6) is not redraw


def test_mistakes_are_one_sentence(unchecked_types: None) -> None:
    for says, calculator, rotations, options in (
        ("at least 2 rotations", Field(), 1, {}),
        ("are a number, or quadrature:DEGREE", Field(), "quad:3", {}),
        ("degree of a quadrature is 1 to 100", Field(), "quadrature:0", {}),
        ("did you mean so3", Field(), 4, {"group": "so2"}),
        ("redraw is for rotations that are drawn", Field(), "quadrature:3", {"redraw": True}),
        ("Atoms is no ASE calculator", Atoms(), 4, {}),
    ):
        with pytest.raises(UsageError, match=says):
            average_over_rotations(calculator, rotations, **options)
    spins = Atoms("O2", [[0, 0, 0], [0, 0, 1.2]], magmoms=[[0, 0, 1], [0, 0, 1]])
    with pytest.raises(UsageError, match="magnetic moments"):
        average_over_rotations(Field()).get_forces(spins)
