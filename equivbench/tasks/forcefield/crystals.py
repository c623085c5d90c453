"""The data set ``crystals``: textbook structures, strained and displaced, labelled by a pair
potential.

``python -m equivbench.tasks.forcefield.crystals --out crystals.npz`` is the maintainers' command.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equivbench.tasks.forcefield.elements import NUMBER_OF
from equivbench.tasks.forcefield.pair_potential import (
    CUTOFF,
    DEPTH,
    RADII,
    energy_forces_stress,
    factor_without_pressure,
)
from equivbench.tasks.forcefield.table import PERIODIC_LAYOUT, facts
from equivbench.tasks.storage import TableBuilder, digest

Rows = tuple[tuple[float, float, float], ...]
Numbers = NDArray[np.float64]

PERTURBATIONS = ((0.005, 0.03), (0.01, 0.08), (0.02, 0.15))
"""Largest entry of the strain, and largest displacement along each axis in A, two structures of
each crystal with each."""
EACH = 2
SEED = 0


@dataclass(frozen=True)
class Crystal:
    """A structure from a textbook: lattice vectors (rows, A), the element and the fractional
    coordinates of each atom."""

    name: str
    lattice: Rows
    elements: tuple[str, ...]
    fractions: Rows


def cubic(a: float) -> Rows:
    """A cube of edge ``a``."""
    return ((a, 0.0, 0.0), (0.0, a, 0.0), (0.0, 0.0, a))


def face_centred(a: float) -> Rows:
    """The primitive cell of the face-centred cubic lattice: three edges at 60 degrees."""
    half = a / 2
    return ((0.0, half, half), (half, 0.0, half), (half, half, 0.0))


def tetragonal(a: float, c: float) -> Rows:
    """A square prism."""
    return ((a, 0.0, 0.0), (0.0, a, 0.0), (0.0, 0.0, c))


def hexagonal(a: float, c: float) -> Rows:
    """A prism over two edges at 120 degrees."""
    return ((a, 0.0, 0.0), (-a / 2, a * 3**0.5 / 2, 0.0), (0.0, 0.0, c))


def rhombohedral(a: float, c: float) -> Rows:
    """The primitive cell of the rhombohedral lattice of these hexagonal constants."""
    side, rise = a * 3**0.5 / 6, c / 3
    return ((a / 2, side, rise), (-a / 2, side, rise), (0.0, -2 * side, rise))


def _rutile(u: float) -> Rows:
    return (
        (0.0, 0.0, 0.0),
        (0.5, 0.5, 0.5),
        (u, u, 0.0),
        (-u, -u, 0.0),
        (0.5 + u, 0.5 - u, 0.5),
        (0.5 - u, 0.5 + u, 0.5),
    )


def _quartz(u: float, x: float, y: float, z: float) -> Rows:
    third = 1 / 3
    return (
        (u, 0.0, 2 * third),
        (0.0, u, third),
        (-u, -u, 0.0),
        (x, y, z),
        (-y, x - y, z + 2 * third),
        (y - x, -x, z + third),
        (y, x, -z),
        (x - y, -y, third - z),
        (-x, y - x, 2 * third - z),
    )


def _corundum(w: float, x: float) -> Rows:
    metal = tuple((each,) * 3 for each in (w, 0.5 - w, 0.5 + w, 1 - w))
    return (
        *metal,
        (x, 0.5 - x, 0.25),
        (0.25, x, 0.5 - x),
        (0.5 - x, 0.25, x),
        (-x, 0.5 + x, 0.75),
        (0.75, -x, 0.5 + x),
        (0.5 + x, 0.75, -x),
    )


_LAYERS = ((1 / 3, 2 / 3, 0.25), (2 / 3, 1 / 3, 0.75))
_FACES = ((0.0, 0.0, 0.0), (0.0, 0.5, 0.5), (0.5, 0.0, 0.5), (0.5, 0.5, 0.0))
_EDGES = ((0.5, 0.5, 0.5), (0.5, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, 0.0, 0.5))
_ORIGIN, _QUARTER, _CENTRE, _BEYOND = ((each,) * 3 for each in (0.0, 0.25, 0.5, 0.75))

CRYSTALS: Sequence[Crystal] = (
    Crystal("Cu", cubic(3.615), ("Cu",) * 4, _FACES),
    Crystal("Fe", cubic(2.866), ("Fe",) * 2, (_ORIGIN, _CENTRE)),
    Crystal("Mg", hexagonal(3.209, 5.211), ("Mg",) * 2, _LAYERS),
    Crystal("Si", face_centred(5.431), ("Si",) * 2, (_ORIGIN, _QUARTER)),
    Crystal("GaAs", face_centred(5.653), ("Ga", "As"), (_ORIGIN, _QUARTER)),
    Crystal("NaCl", cubic(5.640), ("Na",) * 4 + ("Cl",) * 4, (*_FACES, *_EDGES)),
    Crystal("MgO", face_centred(4.212), ("Mg", "O"), (_ORIGIN, _CENTRE)),
    Crystal("CaF2", face_centred(5.463), ("Ca", "F", "F"), (_ORIGIN, _QUARTER, _BEYOND)),
    Crystal("TiO2", tetragonal(4.594, 2.959), ("Ti",) * 2 + ("O",) * 4, _rutile(0.305)),
    Crystal(
        "SrTiO3",
        cubic(3.905),
        ("Sr", "Ti", "O", "O", "O"),
        (_ORIGIN, _CENTRE, (0.5, 0.5, 0.0), (0.5, 0.0, 0.5), (0.0, 0.5, 0.5)),
    ),
    Crystal(
        "SiO2",
        hexagonal(4.913, 5.405),
        ("Si",) * 3 + ("O",) * 6,
        _quartz(0.4697, 0.4135, 0.2669, 0.7858),
    ),
    Crystal(
        "Al2O3", rhombohedral(4.759, 12.991), ("Al",) * 4 + ("O",) * 6, _corundum(0.352, 0.556)
    ),
)
"""Metals (face-centred, body-centred, hexagonal close-packed), diamond, zincblende, rock salt
(twice), fluorite, rutile, perovskite, alpha-quartz and corundum, with lattice constants at room
temperature."""

RECIPE = {
    "structures": "lattice constants and atomic parameters of textbooks (Wyckoff, Crystal "
    "Structures, 1963), at room temperature: "
    + ", ".join(each.name for each in CRYSTALS)
    + "; primitive cells of Si, GaAs, MgO, CaF2 and Al2O3, conventional ones of the others",
    "perturbation": "every entry of a strain and every displacement is uniform up to a bound, "
    "for two structures of each crystal "
    + "; ".join(f"{strain:g} and {shift:g} A" for strain, shift in PERTURBATIONS),
    "labels": "not DFT but a pair potential, with forces and stress its closed-form derivatives "
    "at the stored float32 positions and cells: V(r) = D [(s/r)^4 - 2 (s/r)^2] (1 - (r/R)^2)^3, "
    f"D = {DEPTH} eV, R = {CUTOFF} A, s the sum of two covalent radii (Cordero et al. 2008) "
    "times a factor with which the structure of the textbook has no pressure. It fixes the scale "
    "of an error and nothing else: how far a network's forces are from it says "
    "nothing of the network, how far they are from turning with the crystal does",
    "seed": SEED,
}
LICENCES = {
    "structures": "lattice constants are facts",
    "labels": "computed by equivbench; MIT, as the package",
}


def perturbed(crystal: Crystal, number: int, seed: int = SEED) -> tuple[Numbers, Numbers]:
    """(positions [atoms, 3], cell [3, 3]) in A of one of the perturbed structures of ``crystal``,
    float32; a pure function of its arguments."""
    generator = np.random.default_rng(digest(f"perturb {seed} {crystal.name} {number}"))
    strain, shift = PERTURBATIONS[number // EACH]
    stretch = np.eye(3) + strain * (2 * generator.random((3, 3)) - 1)
    fractions = np.array(crystal.fractions)
    cell = combined(np.array(crystal.lattice), stretch)
    pos = combined(fractions, cell) + shift * (2 * generator.random(fractions.shape) - 1)
    return pos.astype(np.float32), cell.astype(np.float32)


def combined(coefficients: Numbers, rows: Numbers) -> Numbers:
    """[n, 3] sums of three ``rows`` [3, 3] with ``coefficients`` [n, 3]: their product, added up in
    one order on every machine."""
    x, y, z = (coefficients[:, each, None] * rows[each] for each in range(3))
    total: Numbers = x + y + z
    return total


def labelled(crystal: Crystal, pos: Numbers, cell: Numbers) -> tuple[float, Numbers, Numbers]:
    """(energy in eV, forces [atoms, 3] in eV/A, stress [3, 3] in eV/A^3) of ``crystal`` with
    its atoms at ``pos`` [atoms, 3] in ``cell`` [3, 3], both in A."""
    lattice = np.array(crystal.lattice)
    sums, vectors, _ = _edges(crystal, combined(np.array(crystal.fractions), lattice), lattice)
    factor = factor_without_pressure(sums, vectors)
    sums, vectors, target = _edges(crystal, pos.astype(np.float64), cell.astype(np.float64))
    one, two, three = cell.astype(np.float64)
    volume = abs(float((one * np.cross(two, three)).sum()))
    return energy_forces_stress(factor * sums, target, vectors, len(pos), volume)


def _edges(
    crystal: Crystal, pos: Numbers, cell: Numbers
) -> tuple[Numbers, Numbers, NDArray[np.int64]]:
    """(sum of the radii [edges], vector to the image of the source [edges, 3], target [edges])."""
    import torch

    from equivbench.kernels.periodic_neighbours import periodic_edges_within

    edges, shifts = periodic_edges_within(
        torch.from_numpy(pos),
        torch.zeros(len(pos), dtype=torch.int64),
        torch.from_numpy(cell)[None],
        torch.ones(1, 3, dtype=torch.bool),
        CUTOFF,
    )
    source, target = edges.numpy()
    radii = np.array([RADII[each] for each in crystal.elements])
    moved = combined(shifts.numpy().astype(np.float64), cell)
    return radii[source] + radii[target], pos[source] + moved - pos[target], target


def build(out: Path, seed: int = SEED) -> Path:
    """Write the data set to ``out`` (.npz) with its cards beside it; returns ``out``."""
    builder = TableBuilder(PERIODIC_LAYOUT)
    for crystal in CRYSTALS:
        z = np.array([NUMBER_OF[each] for each in crystal.elements], dtype=np.uint8)
        for number in range(EACH * len(PERTURBATIONS)):
            pos, cell = perturbed(crystal, number, seed)
            energy, forces, stress = labelled(crystal, pos, cell)
            builder.add_samples(
                crystal.name,
                np.array([len(z)]),
                "test",
                z=z,
                pos=pos,
                forces=forces,
                energy=np.array([energy]),
                cell=cell[None],
                pbc=np.ones((1, 3), dtype=np.bool_),
                stress=stress[None],
            )
    table = builder.finish(f"{len(CRYSTALS)} crystals", ("test",))
    return table.write(
        out,
        *facts(table),
        recipe=RECIPE,
        licences=LICENCES,
        split_rule="no model is trained on them: all are test",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the .npz, cards beside it")
    print(build(parser.parse_args().out))
