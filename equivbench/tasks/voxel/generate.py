"""The conformer sets: SMILES of the rdkit wheel to MMFF94s minima that fit a box (extra
``generate``; imports no torch).

``python -m equivbench.tasks.voxel.generate --samples 2000 --grid small --out conformers-small.npz``
is the maintainers' command.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equivbench.errors import FailedError
from equivbench.tasks.archives import show_progress
from equivbench.tasks.conformers import (
    STRUCTURES_LICENCE,
    command_line,
    in_processes,
    minimised,
    pool,
    recipe,
)
from equivbench.tasks.molecules import ISOMERS_TOGETHER, first_isomers
from equivbench.tasks.storage import split_rule
from equivbench.tasks.voxel.table import (
    ELEMENTS,
    MARGIN,
    PUBLISHED,
    SMALL,
    ConformerBuilder,
    Grid,
    facts,
)

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
    smiles, seed = job
    made = minimised(smiles, f"embed {seed} {smiles}")
    if made is None:
        return None
    molecule = made[0]
    z = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.uint8)
    return smiles, z, np.array(molecule.GetConformer().GetPositions())


def generate(
    samples: int,
    out: Path,
    *,
    grid: Grid,
    seed: int = 0,
    processes: int = 2,
    isomers_together: bool = False,
) -> Path:
    """Write the first ``samples`` molecules that fit ``grid`` to ``out`` (.npz) with its cards
    beside it; returns ``out``. With ``isomers_together`` stereoisomers are one molecule, which
    sets from before they were are not.

    Raises ``FailedError`` if the pool holds fewer.
    """
    builder, failed, kept = ConformerBuilder(grid), 0, 0
    candidates = pool(seed, ELEMENTS, ATOMS)
    first_of = first_isomers(candidates) if isomers_together else {}
    for conformer in in_processes(process, candidates, seed, processes):
        if conformer is None:
            failed += 1
        elif builder.add(*conformer, identity=first_of.get(conformer[0])):
            kept += 1
        show_progress(kept, samples, "molecules")
        if kept == samples:
            break
    if kept < samples:
        raise FailedError(
            f"the pool of {len(candidates)} molecules holds {kept} that fit {grid.box:g} A; ask "
            "for at most these"
        )
    how = {
        **recipe(("rdkit", "numpy"), seed, ELEMENTS, ATOMS),
        "geometry": "ETKDGv3 embedding, MMFF94s minimisation; one conformer of each molecule",
        "choice": f"in an order drawn from the seed, those whose smallest ball plus {MARGIN:g} A "
        f"fits a box of {grid.box:g} A",
        "orientation": "as rdkit embeds it, which is no uniform draw: rotate it",
        "pool": len(candidates),
        "molecules tried": kept + failed + builder.left_out.total(),
        "molecules that failed a step": failed,
        "molecules left out": builder.excuse(),
    }
    table = builder.finish(f"{samples} molecules of seed {seed}")
    rule = split_rule(*ISOMERS_TOGETHER) if isomers_together else None
    return table.write(out, *facts(table, grid), recipe=how, licences=LICENCES, split_rule=rule)


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument(
        "--grid", choices=GRIDS, default="small", help="whose box every molecule must fit"
    )
    asked = parser.parse_args()
    print(
        generate(
            2000 if asked.samples is None else asked.samples,
            asked.out,
            grid=GRIDS[asked.grid],
            seed=asked.seed or 0,
            processes=asked.processes,
        )
    )
