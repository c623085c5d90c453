"""Writes CA traces as a PDB file, one model a chain, so that any molecular viewer shows them."""

from __future__ import annotations

from pathlib import Path

from equivbench.errors import FailedError
from equivbench.records.files import write_atomically
from equivbench.tasks.flow.structure import Array, Mask

_LARGEST = 999.0
"""A: a coordinate has three digits, a sign and a point before its three decimals' columns."""


def write_pdb(path: Path, positions: Array, mask: Mask) -> Path:
    """Write ``positions`` [chains, residues, 3] in A into ``path`` and return it: models 1, 2, ...
    of glycines' CAs.

    Raises ``FailedError`` if a coordinate does not fit the format's columns.
    """
    lines = []
    for number, (trace, exists) in enumerate(zip(positions, mask, strict=True), start=1):
        if not (abs(trace[exists]) < _LARGEST).all():
            raise FailedError(
                f"sample {number} has coordinates beyond {_LARGEST:g} A, which a PDB file cannot hold; use .npz"
            )
        lines.append(f"MODEL     {number:4d}")
        for residue, (x, y, z) in enumerate(trace[exists].tolist(), start=1):
            lines.append(
                f"ATOM  {residue:5d}  CA  GLY A{residue:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           C  ",
            )
        lines += ["TER", "ENDMDL"]
    write_atomically(path, ("\n".join([*lines, "END"]) + "\n").encode())
    return path
