"""The calculator behind ``average_over_rotations``; importing it imports ASE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.outputs import Properties
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress
from numpy.typing import NDArray

from equivbench.errors import UsageError
from equivbench.symmetry.quadrature import Quadrature

_AVERAGED = ("energy", "free_energy", "forces", "stress")
_SPREADS = ("energy_spread", "forces_spread")


class RotationAverage(Calculator):
    """The mean of ``base`` over the elements that ``elements`` gives for each structure.

    ``exhaustive``: they are a whole group or a quadrature of it, so a spread is over their number;
    else they are draws, and it is over one less.
    """

    def __init__(
        self, base: Any, elements: Callable[[], Quadrature], *, exhaustive: bool = False
    ) -> None:
        super().__init__()
        self.base, self._elements, self._exhaustive = base, elements, exhaustive
        averaged = [name for name in _AVERAGED if name in base.implemented_properties]
        self.implemented_properties = [*averaged, *_SPREADS]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy", "forces"),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill ``results`` with the averages and the spreads; raises ``UsageError`` for magnetic
        moments that are vectors, which are not turned."""
        super().calculate(atoms, list(properties), list(system_changes))
        if self.atoms.has("initial_magmoms") and self.atoms.arrays["initial_magmoms"].ndim > 1:
            raise UsageError("magnetic moments that are vectors are not turned with the atoms")
        # Forces first: what gives them gives the energy with them. Others only on demand: some
        # calculators list more than they give.
        further = ("free_energy", "stress")
        wanted = ["forces", "energy", *(name for name in further if name in properties)]
        rotations, weights = (each.numpy() for each in self._elements())
        found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in wanted}
        for rotation in rotations:
            turned = _turned(self.atoms, rotation)
            for name in wanted:
                value = np.asarray(self.base.get_property(name, turned), dtype=np.float64)
                found[name].append(_taken_back(name, value, rotation))
        stacked = {name: np.stack(values) for name, values in found.items()}
        means = {name: np.tensordot(weights, each, axes=1) for name, each in stacked.items()}
        spreads = {
            f"{name}_spread": self._spread(stacked[name], means[name], weights)
            for name in ("energy", "forces")
        }
        if "stress" in means:
            means["stress"] = full_3x3_to_voigt_6_stress(means["stress"])
        self.results = {
            name: float(each) if np.ndim(each) == 0 else each
            for name, each in {**means, **spreads}.items()
        }

    def export_properties(self) -> Properties:
        """The averages; spreads are no properties that ASE knows."""
        return Properties({k: each for k, each in self.results.items() if k not in _SPREADS})

    def _spread(
        self, values: NDArray[np.float64], mean: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Standard deviation of ``values`` [n, ...] over their elements, of vectors as a whole."""
        squares = np.square(values - mean)
        if squares.ndim > 1:
            squares = squares.sum(-1)
        freedom = 1.0 if self._exhaustive else (len(values) - 1) / len(values)
        return np.asarray(np.sqrt(np.tensordot(weights, squares, axes=1) / freedom))


def _turned(atoms: Atoms, rotation: NDArray[np.float64]) -> Atoms:
    """A copy of ``atoms`` and their cell under ``rotation``, without constraints, which speak of
    fixed directions and are applied to the average."""
    turned = atoms.copy()
    turned.set_constraint()
    turned.set_cell(atoms.cell.array @ rotation.T)
    turned.set_positions(atoms.get_positions() @ rotation.T)
    return turned


def _taken_back(
    name: str, value: NDArray[np.float64], rotation: NDArray[np.float64]
) -> NDArray[np.float64]:
    if name == "forces":
        return value @ rotation
    if name == "stress":
        full = voigt_6_to_full_3x3_stress(value) if value.shape == (6,) else value
        turned: NDArray[np.float64] = rotation.T @ full @ rotation
        return turned
    return value
