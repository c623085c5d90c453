"""ASE calculators whose symmetry is known; importing this needs ASE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.lj import LennardJones

STRENGTH = 0.7


class Field(Calculator):
    """Every atom is pulled to the plane through the mean, across the first axis: E = a sum x^2.

    Over rotations its force -2 a x e_x averages to -2 a r / 3, with a standard deviation of
    2 a |r| sqrt(2) / 3, and its energy to a sum r^2 / 3. Its stress is that of a scaling.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        super().calculate(atoms, list(properties), list(system_changes))
        away = self.atoms.get_positions()
        away = away - away.mean(0)
        energy = STRENGTH * float(np.square(away[:, 0]).sum())
        forces = np.zeros_like(away)
        forces[:, 0] = -2 * STRENGTH * away[:, 0]
        stress = np.array([energy, 0, 0, 0, 0, 0])
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": forces,
            "stress": stress,
        }


class Springs(Field):
    """The same along all three axes, so equivariant."""

    implemented_properties = ["energy", "forces"]
    single = False

    def calculate(self, *arguments: Any, **options: Any) -> None:
        super().calculate(*arguments, **options)
        away = self.atoms.get_positions()
        away = away - away.mean(0)
        if self.single:
            away = away.astype(np.float32)
        energy = STRENGTH * float(np.square(away).sum())
        forces = (-2 * STRENGTH * away).astype(float)
        self.results = {"energy": energy, "forces": forces}


class SingleSprings(Springs):
    """The same, in float32 inside."""

    single = True


class Unturned(LennardJones):
    """Takes the cell by its lengths and angles alone, as if it had not turned with the atoms."""

    def calculate(self, atoms: Atoms | None = None, *arguments: Any, **options: Any) -> None:
        aligned = atoms.copy()
        aligned.set_cell(atoms.cell.cellpar())
        super().calculate(aligned, *arguments, **options)


class Boasting(Springs):
    """Lists a stress and gives none."""

    implemented_properties = ["energy", "forces", "stress"]
