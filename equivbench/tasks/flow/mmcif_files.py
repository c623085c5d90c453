"""Reads the protein chains of an mmCIF file, whichever of the optional columns it has; gemmi reads
the CIF syntax (extra ``structures``). Imports no torch.

gemmi's own model of a structure is not used: it is that of one block, and needs columns that other
programs leave out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.environment import required
from equivbench.tasks.flow.residues import (
    LETTERS,
    Site,
    Structure,
    UnusableFileError,
    box,
    chains_of_sites,
    not_valid,
)

_PLACES = ("Cartn_x", "Cartn_y", "Cartn_z")


def gemmi() -> Any:
    """The module; raises ``FailedError`` with the line that installs it."""
    return required("gemmi", "structure files are read", "structures")


def read_mmcif(content: bytes) -> Structure:
    """The first model of every block.

    Raises :class:`UnusableFileError` if the file is no CIF, has atoms without the columns that say
    what and where they are, or describes molecules apart from a structure.
    """
    cif = gemmi().cif
    try:
        blocks = list(cif.read_string(content))
    # gemmi maps C++ exceptions to whatever Python has for them.
    except (RuntimeError, ValueError, IndexError, UnicodeDecodeError) as error:
        said = str(error).splitlines() or [type(error).__name__]
        raise not_valid(said[0]) from error
    tables = [_AtomTable(cif, block) for block in blocks]
    atoms = sum(map(len, tables))
    if not atoms and any("_chem_comp_atom." in tag for table in tables for tag in table.tags):
        raise UnusableFileError("describes molecules and holds no structure")
    chains = chains_of_sites(
        itertools.chain.from_iterable(table.sites(block) for block, table in enumerate(tables))
    )
    cells = (table.cell() for table in tables)
    return Structure(atoms, chains, next((cell for cell in cells if cell is not None), None))


class _AtomTable:
    """What one block says of atoms."""

    def __init__(self, cif: Any, block: Any) -> None:
        self._cif, self._block = cif, block
        self.tags = [
            tag.lower()
            for item in block
            for tag in (
                item.loop.tags if item.loop is not None else item.pair[:1] if item.pair else ()
            )
        ]
        has_atoms = any(tag.startswith(("_atom_site.", "_atom_site_fract_")) for tag in self.tags)
        if has_atoms and not all(map(self._values, _PLACES)):
            raise not_valid("atoms without Cartesian coordinates")

    def __len__(self) -> int:
        return len(self._values(_PLACES[0]))

    def cell(self) -> NDArray[np.float64] | None:
        """The vectors of the periodic box; see :func:`box`."""
        edges, angles = (
            [
                self._cif.as_number(self._block.find_value(f"_cell.{name}") or "?")
                for name in names.split()
            ]
            for names in ("length_a length_b length_c", "angle_alpha angle_beta angle_gamma")
        )
        return box(edges, angles)

    def sites(self, block: int) -> Iterator[Site]:
        """Atoms of amino acids in the block's first model."""
        if not len(self):
            return
        atom = self._text("label_atom_id", "auth_atom_id")
        residue = self._text("label_comp_id", "auth_comp_id")
        if not any(atom) or not any(residue):
            raise not_valid("atoms without names of atoms and residues")
        asym, chain = self._text("label_asym_id"), self._text("auth_asym_id", "label_asym_id")
        number, other = self._text("label_seq_id"), self._text("auth_seq_id", "label_seq_id")
        insertion, alternate = self._text("pdbx_PDB_ins_code"), self._text("label_alt_id")
        model, places = self._text("pdbx_PDB_model_num"), list(map(self._values, _PLACES))
        for row in range(len(self)):
            name, kind = atom[row].upper(), residue[row].upper()
            own = number[row] or other[row]
            # Where residues have no numbers, every CA is one.
            if model[row] != model[0] or (name != "CA" and (kind not in LETTERS or not own)):
                continue
            x, y, z = (self._cif.as_number(column[row]) for column in places)
            yield Site(
                segment=(block, asym[row], chain[row]),
                chain=chain[row],
                number=_number(own or str(row)),
                insertion="" if number[row] else insertion[row],
                residue=kind,
                atom=name,
                alternate=alternate[row],
                place=(x, y, z),
            )

    def _values(self, column: str) -> Any:
        return self._block.find_values(f"_atom_site.{column}")

    def _text(self, *columns: str) -> list[str]:
        """[atoms] of the first of ``columns`` that is there; empty where it says nothing."""
        for column in columns:
            if values := self._values(column):
                return [self._cif.as_string(value) for value in values]
        return [""] * len(self)


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise not_valid(f"{text!r} is no residue number") from None
