"""The GFN2-xTB data sets: SMILES of the rdkit wheel to labelled conformations (extra ``generate``;
imports no torch).

``python -m equivbench.tasks.forcefield.generate --samples 1995 --out gfn2-small.npz`` is the
maintainers' command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.tasks.conformers import (
    STRUCTURES_LICENCE,
    command_line,
    in_processes,
    minimised,
    pool,
    recipe,
)
from equivbench.tasks.forcefield.table import BOHR, HARTREE, ConformationBuilder, facts
from equivbench.tasks.storage import digest, show_progress

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
    "neither is shipped); MIT, as the package",
}
BOLTZMANN = 0.00198720425864083
"""kcal/mol/K."""
ACCELERATION = 4.184e-4
"""A/fs^2 for 1 kcal/mol/A on 1 Da."""


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


def process(job: tuple[str, int]) -> tuple[Any, ...] | None:
    """(SMILES, z, pos, forces, energy) of one (SMILES, seed) as ``ConformationBuilder.add`` takes
    them, or None where a step fails; a pure function of its argument."""
    smiles, seed = job
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
        (smiles, z, pos, forces.astype(np.float32), energy) if np.isfinite(forces).all() else None
    )


def generate(samples: int, out: Path, *, seed: int = 0, processes: int = 2) -> Path:
    """Write ``samples`` labelled conformations to ``out`` (.npz) with its cards (.json, .md) beside
    it, the same for any ``processes``; returns ``out``."""
    builder, have, failed = ConformationBuilder(), 0, 0
    for made in in_processes(process, pool(seed, ELEMENTS, ATOMS), seed, processes):
        if made is None:
            failed += 1
            continue
        smiles, z, *rows = made
        k = min(len(TEMPERATURES), samples - have)
        have += k
        show_progress(have, samples, "samples")
        builder.add(smiles, z, *(row[:k] for row in rows))
        if have == samples:
            break
    table = builder.finish(f"{samples} samples of seed {seed}")
    how = {
        **recipe(("rdkit", "tblite", "numpy"), seed, ELEMENTS, ATOMS),
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
        "molecules that failed a step": failed,
    }
    return table.write(out, *facts(table), recipe=how, licences=LICENCES)


if __name__ == "__main__":
    asked = command_line(__doc__, 1995).parse_args()
    print(generate(asked.samples, asked.out, seed=asked.seed, processes=asked.processes))
