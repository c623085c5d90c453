"""Makes the complex that GNINA's networks are measured on, from a receptor and a ligand: ``python
tools/make_complex.py RECEPTOR.pdb LIGAND.sdf``, in the environment that ``equivbench pretrained
gnina`` makes (it needs molgrid and numpy)."""

import hashlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import molgrid
import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).resolve().parents[1] / "equivbench" / "pretrained" / "data"
REACH = 25.0
"""A from the ligand's centre: the corner of the grid, half a cell, and the tail of a density."""
CARD = {
    "name": "187l",
    "version": "1",
    "what": "T4 lysozyme L99A with p-xylene in its cavity, PDB 187L: heavy atoms within "
    f"{REACH:g} A of the ligand's centre",
    "affinity": {
        "pk": 3.38,
        "source": "calorimetry: -4.67 kcal/mol at 302 K (Morton, Baase and Matthews, Biochemistry "
        "1995)",
    },
    "columns": {
        "positions": "[atoms, 3] A about the mean position of the ligand's heavy atoms",
        "channels": "[atoms] index of libmolgrid's default types, 14 of the receptor, 14 of the "
        "ligand",
        "radii": "[atoms] A, of these types",
    },
    "licences": {
        "coordinates": "Protein Data Bank entry 187L, CC0 1.0; prepared files with hydrogens as in "
        "the tests of libmolgrid (Apache-2.0)"
    },
    "tools": "molgrid 0.5.5",
}


def plain(grid: Any) -> NDArray[Any]:
    """A grid of molgrid as an array, number by number: molgrid knows only numpy 1."""
    if len(tuple(grid.shape)) == 1:
        return np.array([grid[row] for row in range(grid.shape[0])])
    rows, columns = grid.shape
    return np.array([[grid[row, column] for column in range(columns)] for row in range(rows)])


def main(receptor: Path, ligand: Path) -> None:
    """Write the archive and its card."""
    with tempfile.TemporaryDirectory() as folder:
        types = Path(folder, "one.types")
        types.write_text(f"1 {receptor.resolve()} {ligand.resolve()}\n", encoding="utf-8")
        provider = molgrid.ExampleProvider(shuffle=False, balanced=False)
        provider.populate(str(types))
        example = provider.next()
    atoms = example.merge_coordinates()
    positions = plain(atoms.coords).astype(np.float64)
    channels, radii = plain(atoms.type_index), plain(atoms.radii)
    is_ligand = channels >= 14
    positions -= positions[is_ligand].mean(0)
    near = np.linalg.norm(positions, axis=1) < REACH
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        positions=positions[near].astype(np.float32),
        channels=channels[near].astype(np.uint8),
        radii=radii[near].astype(np.float32),
    )
    content = buffer.getvalue()
    card = {
        **CARD,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "atoms": {"receptor": int((near & ~is_ligand).sum()), "ligand": int(is_ligand.sum())},
    }
    DATA.mkdir(exist_ok=True)
    (DATA / "complex.npz").write_bytes(content)
    (DATA / "complex.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
