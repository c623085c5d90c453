"""The conformer sets: SMILES of the rdkit wheel to MMFF94s minima that fit a box (extra
``generate``; imports no torch).

``python -m equivbench.tasks.voxel.generate --samples 2000 --grid small --out conformers-small.npz``
is the maintainers' command.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.errors import FailedError
from equivbench.tasks.conformers import (
    SMILES_FILES,
    STRUCTURES_LICENCE,
    in_processes,
    minimised,
    pool,
)
from equivbench.tasks.voxel.grid import ELEMENTS, MARGIN, PUBLISHED, SMALL, Grid
from equivbench.tasks.voxel.table import ConformerBuilder, write

ATOMS = (10, 80)
"""Fewest and most atoms, hydrogens included; VoxMol's GEOM-drugs runs keep fewer than 80."""
GRIDS = {"small": SMALL, "published": PUBLISHED}
LICENCES = {
    "structures": STRUCTURES_LICENCE,
    "conformers": "computed by equivbench with rdkit (BSD-3-Clause, not shipped); MIT, as the "
    "package",
}


def process(job: tuple[str, int]) -> tuple[str, NDArray[np.uint8], NDArray[np.float64]] | None:
    """(SMILES, z [atoms], pos [atoms, 3] A) of one (SMILES, seed), or None where a step fails; pure
    in its argument."""
    from rdkit import rdBase

    smiles, seed = job
    with rdBase.BlockLogs():
        made = minimised(smiles, f"embed {seed} {smiles}")
    if made is None:
        return None
    molecule = made[0]
    z = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.uint8)
    return smiles, z, np.array(molecule.GetConformer().GetPositions())


def generate(samples: int, out: Path, *, grid: Grid, seed: int = 0, processes: int = 2) -> Path:
    """Write the first ``samples`` molecules that fit ``grid`` to ``out`` (.npz) with its cards
    beside it; returns ``out``.

    Raises ``FailedError`` if the pool holds fewer.
    """
    builder, failed, kept = ConformerBuilder(grid), 0, 0
    candidates = pool(seed, ELEMENTS, ATOMS)
    with in_processes(process, [(smiles, seed) for smiles in candidates], processes) as made:
        for conformer in made:
            if conformer is None:
                failed += 1
            elif builder.add(*conformer):
                kept += 1
            if sys.stderr.isatty():
                sys.stderr.write(
                    f"\r{kept}/{samples} molecules" + ("\n" if kept == samples else "")
                )
            if kept == samples:
                break
    if kept < samples:
        raise FailedError(
            f"the pool of {len(candidates)} molecules holds {kept} that fit {grid.box:g} A; ask "
            "for at most these"
        )
    counts = {
        "pool": len(candidates),
        "molecules tried": kept + failed + builder.left_out.total(),
        "molecules that failed a step": failed,
        "molecules left out": builder.excuse(),
    }
    table = builder.finish(f"{samples} molecules of seed {seed}")
    return write(table, out, grid, recipe={**_recipe(seed, grid), **counts}, licences=LICENCES)


def _recipe(seed: int, grid: Grid) -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "tools": {name: version(name) for name in ("rdkit", "numpy")},
        "seed": seed,
        "smiles": [f"rdkit wheel, Data/{name}" for name in SMILES_FILES],
        "filter": f"one neutral closed-shell fragment, {ATOMS[0]}-{ATOMS[1]} atoms with H, of "
        f"{' '.join(ELEMENTS)}, no isotopes",
        "geometry": "ETKDGv3 embedding, MMFF94s minimisation; one conformer of each molecule",
        "choice": f"in an order drawn from the seed, those whose smallest ball plus {MARGIN:g} A "
        f"fits a box of {grid.box:g} A",
        "orientation": "as rdkit embeds it, which is no uniform draw: rotate it",
    }


def main() -> None:
    """The command line of the generator."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument(
        "--grid", choices=GRIDS, default="small", help="whose box every molecule must fit"
    )
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
    asked = parser.parse_args()
    print(
        generate(
            asked.samples,
            asked.out,
            grid=GRIDS[asked.grid],
            seed=asked.seed,
            processes=asked.processes,
        )
    )


if __name__ == "__main__":
    main()
