"""The GFN2-xTB data sets: SMILES of the rdkit wheel to labelled conformations (extra ``generate``;
imports no torch).

``python -m equivbench.tasks.forcefield.generate --set small --out gfn2-small.npz`` is the
maintainers' command, and likewise for ``larger`` and ``hotter``, which are tested on alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.errors import FailedError
from equivbench.tasks.archives import show_progress
from equivbench.tasks.base import SPLITS
from equivbench.tasks.conformers import (
    STRUCTURES_LICENCE,
    command_line,
    further_pool,
    in_processes,
    minimised,
    pool,
    recipe,
)
from equivbench.tasks.forcefield.moses import LICENCE, TABLE, WHEEL, published
from equivbench.tasks.forcefield.table import BOHR, HARTREE, LAYOUT, ConformationBuilder, facts
from equivbench.tasks.molecules import ISOMERS_TOGETHER, first_isomers
from equivbench.tasks.parts import resumed
from equivbench.tasks.storage import digest, split_rule

ELEMENTS = ("H", "C", "N", "O", "F", "P", "S", "Cl", "Br", "I")
"""Those of the MACE-OFF split of SPICE."""
ATOMS = (10, 40)
"""Fewest and most atoms, hydrogens included."""
TEMPERATURES = (100.0, 300.0, 500.0)
"""Kelvin: one conformation of each molecule at each."""
LARGER_ELEMENTS = ("H", "C", "N", "O", "F", "S", "Cl", "Br")
"""Those that ``gfn2-small`` has many of."""
LARGER_ATOMS = (41, 60)
HOTTER = 1000.0
"""Kelvin."""
STEPS, TIMESTEP, FRICTION, HYDROGEN_MASS = 200, 1.0, 0.02, 4.0
"""0.2 ps of Langevin dynamics: steps, fs a step, friction in 1/fs, mass of H in Da (so that 1 fs is
a stable step)."""

LICENCES = {
    "structures": STRUCTURES_LICENCE,
    "labels": "computed by equivbench with rdkit (BSD-3-Clause) and tblite (LGPL-3.0-or-later; "
    "neither is shipped); MIT, as the package",
}
TRAINED = Path(__file__).parent / "data" / "gfn2-small.npz"
"""What the networks are trained on that the further sets test."""
TOOLS = ("rdkit", "tblite", "numpy")
_MADE = 1
"""Of what :func:`process` makes: raised where it makes something else of the same arguments, so
that nothing half done is gone on with."""
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


def conformations(
    smiles: str, seed: int, temperatures: tuple[float, ...] = TEMPERATURES
) -> tuple[NDArray[Any], NDArray[Any]] | None:
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
        [langevin(field, start, masses, temperature, generator) for temperature in temperatures]
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


def process(
    job: tuple[str, int], temperatures: tuple[float, ...] = TEMPERATURES
) -> tuple[Any, ...] | None:
    """(SMILES, z, pos, forces, energy) of one (SMILES, seed) as ``ConformationBuilder.add`` takes
    them, or None where a step fails; a pure function of its arguments."""
    smiles, seed = job
    made = conformations(smiles, seed, temperatures)
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
    how = recipe(TOOLS, seed, ELEMENTS, ATOMS)
    return _write(out, how, pool(seed, ELEMENTS, ATOMS), samples, seed=seed, processes=processes)


def generate_beyond(
    samples: int, out: Path, *, seed: int = 0, processes: int = 2, further: Sequence[str]
) -> Path:
    """The same as :func:`generate` of more samples than rdkit's molecules give: all of these come
    first, so that a smaller set is part of this one, and then those of the SMILES ``further`` that
    qualify, which are from the wheel of :mod:`.moses`. Stereoisomers are one molecule, in the split
    of the first of them; all others are in that of the smaller set."""
    how = recipe(TOOLS, seed, ELEMENTS, ATOMS)
    first = pool(seed, ELEMENTS, ATOMS)
    # Some fail a step: a twentieth more than are needed.
    wanted = max(0, math.ceil(1.05 * samples / len(TEMPERATURES)) - len(first))
    others = further_pool(first, further, wanted, seed, ELEMENTS, ATOMS)
    how["further smiles"] = f"{WHEEL}, {TABLE}: none that is among the others or a stereoisomer"
    how["molecules"] = f"the {len(first)} that qualify of rdkit's, then the further ones"
    return _write(
        out,
        how,
        [*first, *others],
        samples,
        seed=seed,
        processes=processes,
        licences={**LICENCES, "further structures": LICENCE},
        sources={WHEEL: published()},
        isomers_together=True,
    )


def generate_larger(samples: int, out: Path, *, seed: int = 1, processes: int = 2) -> Path:
    """The same of ``samples`` molecules with more atoms, hydrogens or not, than any of
    ``gfn2-small``: one conformation of each, at its temperatures in turn."""
    from rdkit import Chem

    trained = LAYOUT.read(TRAINED)[0]
    heavy = int(np.add.reduceat(trained["z"] > 1, trained.first, dtype=np.int64).max())
    how = recipe(TOOLS, seed, LARGER_ELEMENTS, LARGER_ATOMS)
    how["filter"] += f", more than {heavy} atoms without H (the most in {TRAINED.stem})"
    candidates = [
        smiles
        for smiles in pool(seed, LARGER_ELEMENTS, LARGER_ATOMS)
        if Chem.MolFromSmiles(smiles).GetNumHeavyAtoms() > heavy
    ]
    return _write(
        out, how, candidates, samples, seed=seed, processes=processes, split="test", in_turn=True
    )


def generate_hotter(samples: int, out: Path, *, seed: int = 1, processes: int = 2) -> Path:
    """The same of the first ``samples`` test molecules of ``gfn2-small``: one conformation of each,
    at ``HOTTER`` K."""
    trained = LAYOUT.read(TRAINED)[0]
    tested = np.unique(trained["molecule"][trained["split"] == SPLITS.index("test")])
    how = recipe(TOOLS, seed, ELEMENTS, ATOMS)
    how["filter"] = f"the test molecules of {TRAINED.stem}"
    return _write(
        out,
        how,
        [name.decode() for name in trained["names"][tested]],
        samples,
        seed=seed,
        processes=processes,
        split="test",
        temperatures=(HOTTER,),
    )


def _write(
    out: Path,
    how: dict[str, Any],
    candidates: list[str],
    samples: int,
    *,
    seed: int,
    processes: int,
    split: str | None = None,
    temperatures: tuple[float, ...] = TEMPERATURES,
    in_turn: bool = False,
    licences: Mapping[str, str] = LICENCES,
    sources: Mapping[str, Path] | None = None,
    isomers_together: bool = False,
) -> Path:
    """Write the first ``samples`` conformations of ``candidates`` at all ``temperatures``, or
    ``in_turn`` each candidate at one of them; with ``isomers_together`` stereoisomers are one
    molecule, which sets from before they were are not.

    What is made is kept beside ``out`` until it is written, so that an interrupted call that is
    made again goes on. Raises ``FailedError`` where the candidates are too few.
    """
    builder, have, failed, molecules = ConformationBuilder(), 0, 0, 0
    labelled = partial(process, temperatures=temperatures)
    dynamics = {
        "steps": STEPS,
        "timestep_fs": TIMESTEP,
        "friction_per_fs": FRICTION,
        "hydrogen_mass_da": HYDROGEN_MASS,
        "temperatures_k": list(temperatures),
    }
    parts = out.with_name(f"{out.stem}.parts")
    decides = json.dumps([_MADE, how["tools"], seed, dynamics, candidates])
    folder = parts / hashlib.sha256(decides.encode()).hexdigest()[:16]
    first_of = first_isomers(candidates) if isomers_together else {}
    for made in resumed(
        folder, candidates, lambda rest: in_processes(labelled, rest, seed, processes)
    ):
        if made is None:
            failed += 1
            continue
        smiles, z, *rows = made
        first = molecules % len(temperatures) if in_turn else 0
        kept = slice(first, first + (1 if in_turn else min(len(temperatures), samples - have)))
        molecules += 1
        have += kept.stop - kept.start
        show_progress(have, samples, "samples")
        pos, forces, energy = (row[kept] for row in rows)
        builder.add(smiles, z, pos, forces, energy, split, identity=first_of.get(smiles))
        if have == samples:
            break
    if have < samples:
        raise FailedError(
            f"{len(candidates)} molecules qualify and give {have} conformations, not {samples}; "
            "ask for fewer"
        )
    how |= {
        "geometry": "ETKDGv3 embedding, MMFF94s minimisation, then MMFF94s Langevin dynamics "
        "(BAOAB) from the minimum",
        "dynamics": dynamics,
        "labels": "GFN2-xTB energy and analytical forces (tblite, default accuracy) at the stored "
        "float32 positions",
        "molecules that failed a step": failed,
    }
    if in_turn:
        how["conformations"] = "one of each molecule, at the temperatures in turn"
    table = builder.finish(
        f"{samples} samples of seed {seed}", SPLITS if split is None else (split,)
    )
    rule = None if split is None else "no model is trained on them: all are test"
    if isomers_together:
        rule = split_rule(*ISOMERS_TOGETHER)
    table.write(out, *facts(table), recipe=how, licences=licences, split_rule=rule, sources=sources)
    shutil.rmtree(parts, ignore_errors=True)
    return out


SETS = {
    "small": (generate, 1995, 0),
    "larger": (generate_larger, 120, 1),
    "hotter": (generate_hotter, 145, 1),
}
"""The shipped sets: how each is made, and its samples and seed."""

if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--set", choices=SETS, default="small", help="which of the shipped sets")
    asked = parser.parse_args()
    make, samples, seed = SETS[asked.set]
    samples = samples if asked.samples is None else asked.samples
    seed = seed if asked.seed is None else asked.seed
    print(make(samples, asked.out, seed=seed, processes=asked.processes))
