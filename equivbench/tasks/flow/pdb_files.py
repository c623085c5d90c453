"""Reads the protein chains of a PDB file line by line. Imports no torch.

gemmi's own reader is not used: it joins the parts of a file that share a chain name and residue
numbers, and takes left-justified CA atoms for calcium.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from equivbench.tasks.flow.residues import (
    LETTERS,
    Place,
    Site,
    Structure,
    box,
    chains_of_sites,
    not_valid,
)

_MODEL_END = re.compile(rb"^ENDMDL[^\r\n]*", re.MULTILINE)
_ATOM = re.compile(rb"^(?:ATOM|HETATM)", re.MULTILINE)
_ATOM_OR_MODEL = re.compile(rb"^(?:ATOM|HETATM|MODEL )", re.MULTILINE)


def read_pdb(content: bytes) -> Structure:
    """The first model: to the first ENDMDL or END after an atom.

    Raises :class:`~equivbench.tasks.flow.residues.UnusableFileError` if a line of an amino acid
    cannot be read.
    """
    atoms = 0
    cell: NDArray[np.float64] | None = None

    def sites() -> Iterator[Site]:
        nonlocal atoms, cell
        ended, chain = 0, ""
        # A line at a time: a list of all may take many times the memory of the file.
        lines = io.BytesIO(content.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
        for number, raw in enumerate(lines, 1):
            line = raw.decode("latin-1").removesuffix("\n")
            record = line[:6].rstrip().upper()
            if record in ("ATOM", "HETATM"):
                atoms += 1
                residue, chain = _residue_and_chain(line, chain)
                atom = line[12:16].strip().upper()
                if residue in LETTERS or atom == "CA":
                    yield Site(
                        segment=(ended, chain),
                        chain=chain,
                        number=_number(line, number),
                        insertion="" if line[26:27].isdigit() else line[26:27].strip(),
                        residue=residue,
                        atom=atom,
                        alternate=line[16:17].strip(),
                        place=_place(line, number),
                    )
            elif record == "TER":
                ended += 1
            elif record == "CRYST1":
                cell = _cell(line)
            elif record in ("ENDMDL", "END") and atoms:
                return

    chains = chains_of_sites(sites())
    return Structure(atoms, chains, cell)


def each_model(content: bytes) -> Iterator[bytes]:
    """``content`` once for each of its models that has an atom, with the lines before the first
    one; whole if no more than one ends in it."""
    parts = _MODEL_END.split(content)
    if len(parts) <= 2:
        yield content
        return
    first = _ATOM_OR_MODEL.search(parts[0])
    header = parts[0][: first.start()] if first else b""
    yield from (
        part if index == 0 else header + part
        for index, part in enumerate(parts)
        if _ATOM.search(part)
    )


def _residue_and_chain(line: str, before: str) -> tuple[str, str]:
    """(residue, chain) of an atom's line; ``before`` is the chain of the line before.

    Columns 18-20 are the residue's and 22 the chain's; the one between is the first letter of a
    chain of two, or the last of a force field's residue of four.
    """
    chain = line[20:22].strip()
    longer = line[17:21].strip().upper()
    if chain != before and len(longer) == 4 and longer in LETTERS:
        return longer, line[21:22].strip()
    return line[17:20].strip().upper(), chain


def _number(line: str, place: int) -> int:
    """The residue's number, in columns 23-26: with a fifth digit in 27, or in hybrid-36, from
    10,000 on."""
    text = (line[22:27] if line[26:27].isdigit() else line[22:26]).strip()
    try:
        if text[:1].isalpha() and len(text) == 4:
            return int(text, 36) + 10**4 + (-10 if text.isupper() else 16) * 36**3
        return int(text)
    except ValueError:
        raise not_valid(f"no residue number in columns 23-26 of line {place}") from None


def _place(line: str, place: int) -> Place:
    """In columns 31-54; asterisks stand for a number that did not fit, so that the place is not
    known."""
    if len(line) < 54:
        raise not_valid(f"line {place} is cut short")
    try:
        x, y, z = (
            math.nan if set(text.strip()) == {"*"} else float(text)
            for text in (line[30:38], line[38:46], line[46:54])
        )
    except ValueError:
        raise not_valid(f"no coordinates in columns 31-54 of line {place}") from None
    return x, y, z


def _cell(line: str) -> NDArray[np.float64] | None:
    try:
        numbers = [float(line[a:b]) for a, b in pairwise((6, 15, 24, 33, 40, 47, 54))]
    except ValueError:
        return None
    return box(numbers[:3], numbers[3:])
