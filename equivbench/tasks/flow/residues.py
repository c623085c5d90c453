"""Residues of protein chains as a structure file states them: which amino acids are standard, and
where one chain ends and the next begins. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Place = tuple[float, float, float]
NOWHERE: Place = (math.nan, math.nan, math.nan)

STANDARD = {
    "ALA": "A", "CYS": "C", "ASP": "D", "GLU": "E", "PHE": "F", "GLY": "G", "HIS": "H", "ILE": "I",
    "LYS": "K", "LEU": "L", "MET": "M", "ASN": "N", "PRO": "P", "GLN": "Q", "ARG": "R", "SER": "S",
    "THR": "T", "VAL": "V", "TRP": "W", "TYR": "Y",
}  # fmt: skip
"""Letter of each of the twenty L-amino acids by its name."""
_STATES = {
    "H": "HID HIE HIP HSD HSE HSP HISA HISB HISD HISE HISH HISP HIS1 HIS2",
    "C": "CYX CYM CYSH CYS1 CYS2",
    "D": "ASH ASPH ASPP",
    "E": "GLH GLUH GLUP",
    "K": "LYN LYSH LYSN",
    "R": "ARN ARGN",
}
_FORCE_FIELD = STANDARD | {
    name: letter for letter, names in _STATES.items() for name in names.split()
}
LETTERS = {
    **_FORCE_FIELD,
    **{end + name: letter for name, letter in _FORCE_FIELD.items() for end in "NC"},
    "MSE": "M",
}
"""Letter of each standard L-amino acid by all its names: those that force fields give to
protonation states, to bridged cysteines and to either end of a chain (NALA, CALA), and
selenomethionine, which crystallographers put in the place of methionine."""


class UnusableFileError(Exception):
    """A structure file that gives no chain; the message says why in a few words."""


def not_valid(why: str) -> UnusableFileError:
    """The error of a file that breaks its format."""
    return UnusableFileError(f"not valid ({why[:80]})")


@dataclass
class Residue:
    """A residue of a standard amino acid, or of another kind with a CA atom; ``ca`` is its place in
    A, not a number where the file gives none."""

    number: int
    insertion: str
    name: str
    ca: Place = NOWHERE
    alternate: str = ""
    """The first label of an alternate place among its atoms."""


@dataclass
class ChainPart:
    """Residues of one chain, in their order; a file may have several chains of one ``name``."""

    name: str
    residues: list[Residue] = field(default_factory=list)


@dataclass(frozen=True)
class Structure:
    """The first model of a file; ``cell`` [3, 3] has the vectors of the periodic box as rows, in A,
    None where there is none."""

    atoms: int
    chains: list[ChainPart]
    cell: NDArray[np.float64] | None


class Site(NamedTuple):
    """An atom as the file states it. ``segment`` changes where the file says that a chain ends."""

    segment: Hashable
    chain: str
    number: int
    insertion: str
    residue: str
    atom: str
    alternate: str
    place: Place


def chains_of_sites(sites: Iterable[Site]) -> list[ChainPart]:
    """The residues of ``sites``, and in which chains.

    A chain ends with its segment, where residue numbers go down, and where a residue comes again
    that is no alternate place of the first. Of alternate places, and of several residues in one
    place, the first counts. An atom CA of a residue of a protein is an alpha carbon, whatever the
    file says or leaves out of its element.
    """
    chains: list[ChainPart] = []
    seen: dict[tuple[int, str], Residue] = {}
    segment: Hashable = None
    last: Residue | None = None
    for site in sites:
        key = (site.number, site.insertion)
        known = seen.get(key) if site.segment == segment else None
        if known is None or not _belongs(site, known, is_last=known is last):
            again = known is not None and known is not last
            goes_down = last is not None and site.number < last.number
            if not chains or site.segment != segment or again or goes_down:
                chains.append(ChainPart(site.chain))
                seen, segment = {}, site.segment
            last = known = seen[key] = Residue(site.number, site.insertion, site.residue)
            chains[-1].residues.append(known)
        known.alternate = known.alternate or site.alternate
        if site.atom == "CA" and known.ca is NOWHERE:
            known.ca = site.place
    return chains


def _belongs(site: Site, known: Residue, *, is_last: bool) -> bool:
    """Whether the atom is of ``known``, which has its number: the residue that is being read, or an
    earlier one that has alternate places."""
    if is_last:
        return site.residue == known.name or bool(site.alternate)
    return "" not in (site.alternate, known.alternate) and site.alternate != known.alternate


def box(edges: Iterable[float], angles: Iterable[float]) -> NDArray[np.float64] | None:
    """[3, 3] the vectors of a cell as rows, in A, from three edges (A) and angles (degrees).

    None where they are no numbers, enclose no volume, or are the unit cube that stands for "no
    crystal" in structures by other methods.
    """
    lengths, cosines = np.array([*edges]), np.cos(np.radians([*angles]))
    if not np.isfinite([*lengths, *cosines]).all() or lengths.min() <= 1:
        return None
    products = np.eye(3)
    for (i, j), cosine in zip(((1, 2), (0, 2), (0, 1)), cosines, strict=True):
        products[i, j] = products[j, i] = cosine
    try:
        # Rows of the factor are unit vectors at these angles to one another.
        return np.asarray(np.linalg.cholesky(products) * lengths[:, None])
    except np.linalg.LinAlgError:
        return None
