"""The pair potential that labels the shipped crystals: energy, forces and stress in closed form.
Imports no torch.

A pair of atoms at distance r with the length s, the sum of their covalent radii times a factor of
the crystal, has the energy

    V(r) = D [(s / r)^4 - 2 (s / r)^2] (1 - (r / R)^2)^3    for r < R, else 0,

a soft Mie potential that ends at the cutoff R with two derivatives. The factor is such that the
structure of the textbook has no pressure. All is made of sums, products and quotients, and added up
exactly, which every machine rounds alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

CUTOFF = 6.0
"""A."""
DEPTH = 0.5
"""eV, of a pair at the distance s, but for the cutoff."""
RADII: Mapping[str, float] = {
    "O": 0.66, "F": 0.57, "Na": 1.66, "Mg": 1.41, "Al": 1.21, "Si": 1.11, "Cl": 1.02, "Ca": 1.76,
    "Ti": 1.60, "Fe": 1.32, "Cu": 1.32, "Ga": 1.22, "As": 1.19, "Sr": 1.95,
}  # fmt: skip
"""Covalent radii in A (Cordero et al. 2008), of the elements of the shipped crystals."""

Vectors = NDArray[np.float64]


def energy_forces_stress(
    lengths: Vectors, target: NDArray[np.int64], vectors: Vectors, atoms: int, volume: float
) -> tuple[float, Vectors, Vectors]:
    """The energy (eV), the forces [atoms, 3] (eV/A) and the stress [3, 3] (eV/A^3, positive under
    tension) of one periodic structure.

    Parameters
    ----------
    lengths
        [edges] the length s of each pair, in A.
    target
        [edges] the atom at which each directed edge within ``CUTOFF`` ends; every pair is there
        both ways.
    vectors
        [edges, 3] from there to the image of the source, in A.
    volume
        Of the cell, in A^3.
    """
    square, second, left = _terms(lengths, vectors)
    well, cut = second * second - 2 * second, left * left * left
    energy = DEPTH * well * cut
    # By r^2: a displacement u of the source changes it by 2 r.u, and a strain e by 2 r.e.r.
    inner = -2 * (second * second - second) / square * cut
    outer = -3 * well * left * left / CUTOFF**2
    pull = 2 * DEPTH * (inner + outer)[:, None] * vectors
    forces = np.array(
        [[math.fsum(pull[target == atom, axis]) for axis in range(3)] for atom in range(atoms)]
    )
    # Half of every pair is in each of its two edges.
    virial = pull[:, :, None] * vectors[:, None, :] / 2
    stress = np.array([[math.fsum(virial[:, a, b]) / volume for b in range(3)] for a in range(3)])
    return math.fsum(energy) / 2, forces, stress


def factor_without_pressure(sums: Vectors, vectors: Vectors) -> float:
    """The factor on ``sums`` [edges], the covalent radii of each pair together, with which a
    structure of these ``vectors`` [edges, 3] has no pressure.

    By its square the virial is a quadratic polynomial without a constant.
    """
    square, second, left = _terms(sums, vectors)
    cut, slope = left * left * left, 3 * left * left * square / CUTOFF**2
    repulsion = math.fsum(second * second * (2 * cut + slope))
    attraction = math.fsum(2 * second * (cut + slope))
    return math.sqrt(attraction / repulsion)


def _terms(lengths: Vectors, vectors: Vectors) -> tuple[Vectors, Vectors, Vectors]:
    """(r^2, (s / r)^2, 1 - (r / R)^2) of each edge."""
    square = np.square(vectors).sum(1)
    return square, lengths * lengths / square, 1 - square / CUTOFF**2
