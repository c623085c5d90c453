"""Averages of an ASE calculator over rotations, for molecular dynamics with a model that is only
nearly equivariant, with the spread of its forces. ASE itself is imported where it is needed."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from equivbench.environment import required
from equivbench.errors import UsageError, unknown_name
from equivbench.specs import Group
from equivbench.symmetry.quadrature import Quadrature, quadrature_degree, rotation_quadrature
from equivbench.symmetry.rotations import octahedral_rotations, random_orthogonal


def average_over_rotations(
    calculator: Any,
    rotations: int | str = 8,
    *,
    group: Group = "so3",
    seed: int = 0,
    redraw: bool = False,
) -> Any:
    """An ASE calculator whose energy, forces and stress are the mean of ``calculator``'s over
    rotated copies of the atoms and their cell, rotated back.

    Beside them its ``results`` hold ``forces_spread`` [atoms], the standard deviation over
    rotations of the force on each atom as a vector (eV/A), and ``energy_spread`` (eV): how much the
    answer depends on the orientation. Of n independent draws the mean is off by about the spread
    over the root of n. With the rotations fixed the mean forces of a conservative calculator are
    conservative too. Costs one call of ``calculator`` a rotation.

    Parameters
    ----------
    calculator
        Any ASE calculator that gives an energy and forces.
    rotations
        How many are drawn, 2 or more, or ``"quadrature:DEGREE"``, which is exact for what varies
        with the rotation no faster than the degree (3: 32 rotations; the spread is exact at twice
        the degree of the forces). Not used where the group is ``octahedral``.
    group
        ``so3``, ``o3`` (improper rotations too: each draw is turned inside out with probability
        1/2) or ``octahedral``, the 24 rotations of the cube.
    seed
        Of the draws.
    redraw
        Draw anew for every structure, so that no orientation is preferred in the long run; forces
        are then noisy and energy is not conserved.

    Raises
    ------
    UsageError
        For fewer than 2 draws, an unknown group, and what is no ASE calculator.
    FailedError
        Where ASE is not installed.
    """
    required("ase", "an average over rotations is made", "ase")
    if not {"energy", "forces"} <= set(getattr(calculator, "implemented_properties", ())):
        raise UsageError(
            f"{type(calculator).__name__} is no ASE calculator that gives energy and forces"
        )
    from equivbench.symmetry.averaging_calculator import RotationAverage

    draws = _Draws(rotations, group, seed, redraw)
    return RotationAverage(calculator, draws.next, exhaustive=not draws.random)


class _Draws:
    """The rotations that the next structure is averaged over."""

    def __init__(self, rotations: int | str, group: str, seed: int, redraw: bool) -> None:
        if group not in get_args(Group):
            raise unknown_name("group", group, get_args(Group))
        self._group, self._redraw = group, redraw
        self._generator = torch.Generator().manual_seed(seed)
        self._count = _count(rotations)
        self.random = group != "octahedral" and not isinstance(rotations, str)
        if redraw and not self.random:
            raise UsageError("redraw is for rotations that are drawn: give their number, with so3")
        if group == "octahedral":
            self._kept = _alike(octahedral_rotations(torch.float64))
        elif self.random:
            self._kept = self._drawn()
        else:
            self._kept = rotation_quadrature(self._count, group)

    def next(self) -> Quadrature:
        if self._redraw:
            self._kept = self._drawn()
        return self._kept

    def _drawn(self) -> Quadrature:
        group: Literal["so3", "o3"] = "o3" if self._group == "o3" else "so3"
        return _alike(random_orthogonal(self._count, group, self._generator))


def _alike(rotations: Tensor) -> Quadrature:
    """``rotations`` [n, 3, 3], each counting as much as the others."""
    return Quadrature(rotations, rotations.new_full((len(rotations),), 1 / len(rotations)))


def _count(rotations: int | str) -> int:
    """The number of draws, or the degree of the quadrature."""
    degree = quadrature_degree(rotations)
    if degree is not None:
        return degree
    count = int(rotations)
    if count < 2:
        raise UsageError(f"at least 2 rotations are needed to see a spread, not {count}")
    return count
