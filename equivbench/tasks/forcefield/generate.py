"""The GFN2-xTB data sets: SMILES of the rdkit wheel to labelled conformations (extra ``generate``;
imports no torch).

``python -m equivbench.tasks.forcefield.generate --samples 1995 --out gfn2-small.npz`` is the
maintainers' command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.tasks.conformers import (
    SMILES_FILES,
    STRUCTURES_LICENCE,
    in_processes,
    minimised,
    pool,
)
from equivbench.tasks.forcefield.constants import BOHR, HARTREE
from equivbench.tasks.forcefield.table import ConformationBuilder, write
from equivbench.tasks.ragged import digest

ELEMENTS = ("H", "C", "N", "O", "F", "P", "S", "Cl", "Br", "I")
"""Those of the MACE-OFF split of SPICE."""
ATOMS = (10, 40)
"""Fewest and most atoms, hydrogens included."""
TEMPERATURES = (100.0, 300.0, 500.0)
"""Kelvin: one conformation of each molecule at each."""
STEPS, TIMESTEP, FRICTION, HYDROGEN_MASS = 200, 1.0, 0.02, 4.0
"""0.2 ps of Langevin dynamics: steps, fs a step, friction in 1/fs, mass of H in Da (so that 1 fs is
a stable step)."""

LICENCES = {
    "structures": STRUCTURES_LICENCE,
    "labels": "computed by equivbench with rdkit (BSD-3-Clause) and tblite (LGPL-3.0-or-later; "
    "neither is shipped); MIT, as the "
    "package",
}
BOLTZMANN = 0.00198720425864083
"""kcal/mol/K."""
ACCELERATION = 4.184e-4
"""A/fs^2 for 1 kcal/mol/A on 1 Da."""


@dataclass(frozen=True)
class Labelled:
    """The conformations of one molecule: ``z`` [atoms]; ``pos`` (A) and ``forces`` (eV/A) [k,
    atoms, 3] float32; ``energy`` [k] float64 (eV).
    """

    smiles: str
    z: NDArray[Any]
    pos: NDArray[Any]
    forces: NDArray[Any]
    energy: NDArray[Any]


def langevin(
    field: Any,
    pos: NDArray[Any],
    masses: NDArray[Any],
    temperature: float,
    generator: np.random.Generator,
) -> NDArray[Any]:
    """Positions [atoms, 3] after BAOAB Langevin dynamics (Leimkuhler & Matthews 2013) on rdkit's
    force field."""

    def acceleration() -> NDArray[np.float64]:
        flat = pos.ravel().tolist()
        # CalcGrad alone reuses the distances of the last energy call: without this the forces
        # belong to other positions.
        field.CalcEnergy(flat)
        gradient = np.array(field.CalcGrad(flat), dtype=np.float64).reshape(-1, 3)
        return np.asarray(-ACCELERATION * gradient / masses)

    pos = pos.copy()
    width = np.sqrt(BOLTZMANN * temperature * ACCELERATION / masses)
    keep = np.exp(-FRICTION * TIMESTEP)
    velocity = width * generator.standard_normal(pos.shape)
    kick = acceleration()
    for _ in range(STEPS):
        velocity += 0.5 * TIMESTEP * kick
        pos += 0.5 * TIMESTEP * velocity
        velocity = keep * velocity + np.sqrt(1 - keep**2) * width * generator.standard_normal(
            pos.shape
        )
        pos += 0.5 * TIMESTEP * velocity
        kick = acceleration()
        velocity += 0.5 * TIMESTEP * kick
    return pos


def conformations(smiles: str, seed: int) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """(z [atoms] uint8, pos [temperatures, atoms, 3] float32, A), or None where rdkit cannot embed
    or type the molecule."""
    found = minimised(smiles, f"embed {seed} {smiles}")
    if found is None:
        return None
    molecule, field = found
    start = np.array(molecule.GetConformer().GetPositions())
    z = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.uint8)
    masses = np.array(
        [
            HYDROGEN_MASS if atom.GetAtomicNum() == 1 else atom.GetMass()
            for atom in molecule.GetAtoms()
        ]
    )[:, None]
    generator = np.random.default_rng(digest(f"dynamics {seed} {smiles}"))
    ends = np.stack(
        [langevin(field, start, masses, temperature, generator) for temperature in TEMPERATURES]
    )
    return z, (ends - ends.mean(1, keepdims=True)).astype(np.float32)


def label(z: NDArray[Any], pos: NDArray[Any]) -> tuple[float, NDArray[Any]]:
    """GFN2-xTB (energy in eV, forces [atoms, 3] in eV/A) at ``pos`` in A; tblite speaks Hartree and
    bohr."""
    from tblite.interface import Calculator

    calculator = Calculator("GFN2-xTB", z.astype(int), pos.astype(np.float64) / BOHR)
    calculator.set("verbosity", 0)
    result = calculator.singlepoint()
    return float(result.get("energy")) * HARTREE, -np.asarray(result.get("gradient")) * (
        HARTREE / BOHR
    )


def process(job: tuple[str, int]) -> Labelled | None:
    """The labelled conformations of one (SMILES, seed), or None where a step fails; a pure function
    of its argument."""
    from rdkit import rdBase

    smiles, seed = job
    with rdBase.BlockLogs():
        made = conformations(smiles, seed)
    if made is None:
        return None
    z, pos = made
    try:
        labels = [label(z, frame) for frame in pos]
    except RuntimeError:  # the self-consistent charges did not converge
        return None
    energy = np.array([e for e, _ in labels])
    forces = np.stack([f for _, f in labels])
    return (
        Labelled(smiles, z, pos, forces.astype(np.float32), energy)
        if np.isfinite(forces).all()
        else None
    )


def labelled(samples: int, seed: int, processes: int) -> Iterator[Labelled | None]:
    """Molecules in their drawn order (None: failed) until they hold ``samples`` conformations, the
    same for any ``processes``."""
    jobs = [(smiles, seed) for smiles in pool(seed, ELEMENTS, ATOMS)]
    have = 0
    with in_processes(process, jobs, processes) as made:
        for molecule in made:
            have += 0 if molecule is None else len(TEMPERATURES)
            yield molecule
            if have >= samples:
                return


def generate(samples: int, out: Path, *, seed: int = 0, processes: int = 2) -> Path:
    """Write ``samples`` labelled conformations to ``out`` (.npz) with its cards (.json, .md) beside
    it; returns ``out``."""
    builder, have, failed = ConformationBuilder(), 0, 0
    for molecule in labelled(samples, seed, processes):
        if molecule is None:
            failed += 1
            continue
        k = min(len(TEMPERATURES), samples - have)
        have += k
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{have}/{samples} samples" + ("\n" if have == samples else ""))
        builder.add(
            molecule.smiles, molecule.z, molecule.pos[:k], molecule.forces[:k], molecule.energy[:k]
        )
    return write(
        builder.finish(f"{samples} samples of seed {seed}"),
        out,
        recipe={**_recipe(seed), "molecules that failed a step": failed},
        licences=LICENCES,
    )


def _recipe(seed: int) -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "tools": {name: version(name) for name in ("rdkit", "tblite", "numpy")},
        "seed": seed,
        "smiles": [f"rdkit wheel, Data/{name}" for name in SMILES_FILES],
        "filter": f"one neutral closed-shell fragment, {ATOMS[0]}-{ATOMS[1]} atoms with H, of "
        f"{' '.join(ELEMENTS)}, no isotopes",
        "geometry": "ETKDGv3 embedding, MMFF94s minimisation, then MMFF94s Langevin dynamics "
        "(BAOAB) from the minimum",
        "dynamics": {
            "steps": STEPS,
            "timestep_fs": TIMESTEP,
            "friction_per_fs": FRICTION,
            "hydrogen_mass_da": HYDROGEN_MASS,
            "temperatures_k": list(TEMPERATURES),
        },
        "labels": "GFN2-xTB energy and analytical forces (tblite, default accuracy) at the stored "
        "float32 positions",
    }


def main() -> None:
    """The command line of the generator."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1995)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--processes",
        type=int,
        default=2,
        help="worker processes; the file is the same for any number",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="the .npz to write; its .json and .md cards go beside it",
    )
    arguments = parser.parse_args()
    print(
        generate(
            arguments.samples, arguments.out, seed=arguments.seed, processes=arguments.processes
        )
    )


if __name__ == "__main__":
    main()
