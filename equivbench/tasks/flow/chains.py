"""CA traces of the protein chains in a PDB or mmCIF file, which sequences are parts of others, and
clusters of similar ones (gemmi, extra ``structures``). Imports no torch."""

from __future__ import annotations

import codecs
import gzip
import io
import itertools
import re
import zlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equivbench.tasks.flow.mmcif_files import gemmi, read_mmcif
from equivbench.tasks.flow.pdb_files import read_pdb
from equivbench.tasks.flow.residues import LETTERS, ChainPart, UnusableFileError, not_valid

_SUFFIX = re.compile(r"\.(?:pdb\d*|ent|cif|mmcif)(?=(?:\.gz)?$)")
_GZIP = b"\x1f\x8b"
_BLOCK = re.compile(rb"(?:\s++|#[^\n]*+\n)*+data_", re.IGNORECASE)
"""How an mmCIF begins, whatever it is called; it goes back on nothing, which would take a hundred
times the memory of the blanks."""
SUFFIXES = ".pdb (.pdb1, ...), .ent, .cif or .mmcif"
"""Of structure files, for people; each also with ``.gz``."""
MOST_BYTES = 200_000_000
"""Of one file, unpacked: the largest entries of the PDB, whole virus capsids, are beyond; parsing
takes about 5 times as much."""
SHORTEST = 40
"""Residues of an unbroken stretch that is worth keeping."""
STEP = (2.7, 4.3)
"""A between neighbouring CA of an unbroken chain: cis peptides have 2.9-3.0, trans 3.8, a missing
residue gives 5 or more."""
_FARTHEST = 1e6
"""A: a place that is farther out, or no number, is none."""
_IMAGES = np.array([*itertools.product((-1, 0, 1), repeat=3)])
"""[27, 3] the boxes round one: rounding fractional coordinates alone finds no nearest image where
angles are far from right ones."""


IDENTITY = 0.5
"""Identical residues of an alignment over the length of the shorter sequence, at which two belong
together."""
WORD, MOST_CANDIDATES, LEAST_SHARED = 3, 20, 16
"""Residues in a shared word; how many representatives are aligned with a sequence; one word in so
many that they must share."""
_WINDOW = 12


@dataclass(frozen=True)
class Chain:
    """An unbroken stretch of a protein chain, from one gap to the next.

    ``name`` is that of the chain, such as ``1UBI_A``, and for further chains of that name in one
    file ``1UBI_A.2``; ``start`` counts the chain's residues before the stretch; ``sequence`` has
    one letter a residue; ``ca`` is [residues, 3] float64 in A.
    """

    name: str
    start: int
    sequence: str
    ca: NDArray[np.float64]


class FileChains(list[Chain]):
    """The chains of one file; ``left_out`` counts, by name, the residues in its chains that are no
    standard L-amino acid."""

    left_out: Counter[str]


def suffix_of(name: str) -> str | None:
    """The structure suffix of a file name without ``.gz``, in lower case, or None for another
    file."""
    found = _SUFFIX.search(name.lower())
    return None if found is None else found[0]


def content_of(path: Path) -> bytes:
    """The unpacked bytes of a structure file; raises :class:`UnusableFileError` if it cannot be
    read or is enormous."""
    try:
        with path.open("rb") as file:
            return unpacked(file.read(MOST_BYTES + 1), path.name)
    except OSError as error:
        raise UnusableFileError(f"cannot be read ({error.strerror or error})") from error


def unpacked(content: bytes, name: str) -> bytes:
    """``content``, decompressed if its first bytes or ``name`` say gzip, without a byte-order mark,
    never more than ``MOST_BYTES`` of it."""
    if content.startswith(_GZIP) or name.lower().endswith(".gz"):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
                content = file.read(MOST_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise UnusableFileError("broken gzip file") from error
    if len(content) > MOST_BYTES:
        raise UnusableFileError(f"larger than {MOST_BYTES / 1e6:g} MB")
    content = content.removeprefix(codecs.BOM_UTF8)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            content = content.decode("utf-16").encode()
        except UnicodeDecodeError as error:
            raise not_valid("its first bytes say UTF-16, and it is none") from error
    if not content.strip():
        raise UnusableFileError("empty")
    return content


def chains_of(content: bytes, name: str, entry: str) -> FileChains:
    """The unbroken stretches, ``SHORTEST`` or longer, of the first model's protein chains;
    ``entry`` starts the chains' names.

    A gap is where neighbouring CA atoms are not ``STEP`` apart, at a residue without CA, and at one
    that is no standard L-amino acid. Where residues that are numbered as neighbours are neighbours
    across the file's periodic box, the chain goes on and its places are those of one whole chain.
    Raises :class:`UnusableFileError` if the file cannot be parsed, has no protein, or no stretch
    that long.
    """
    is_cif = (suffix_of(name) or "").endswith("cif") or _BLOCK.match(content) is not None
    structure = read_mmcif(content) if is_cif else read_pdb(content)
    if not structure.atoms:
        raise UnusableFileError("no atoms")
    found, times = FileChains(), Counter[str]()
    found.left_out = Counter()
    for chain in structure.chains:
        stretches = _stretches(chain, structure.cell, found.left_out)
        times[chain.name] += bool(stretches)
        again = f".{times[chain.name]}" if times[chain.name] > 1 else ""
        found += [
            Chain(
                f"{entry}_{chain.name}{again}",
                start,
                "".join(
                    LETTERS[residue.name] for residue in chain.residues[start : start + len(ca)]
                ),
                ca,
            )
            for start, ca in stretches
        ]
    if found:
        return found
    others = ", ".join(f"{name} {count}" for name, count in found.left_out.most_common(5))
    standard = [
        residue
        for chain in structure.chains
        for residue in chain.residues
        if residue.name in LETTERS
    ]
    if others:
        raise UnusableFileError(
            f"no unbroken chain of {SHORTEST} standard L-amino acids (others: {others})"
        )
    if not standard:
        raise UnusableFileError("no protein")
    if all(np.isnan(residue.ca).any() for residue in standard):
        raise UnusableFileError("a protein without places of CA atoms")
    raise UnusableFileError(f"no unbroken chain of {SHORTEST} residues")


def _stretches(
    chain: ChainPart, cell: NDArray[np.float64] | None, left_out: Counter[str]
) -> list[tuple[int, NDArray[np.float64]]]:
    """(first residue, positions) of the stretches between gaps; counts in ``left_out`` the residues
    that are no standard amino acid and have a neighbour."""
    # A residue without CA has its place nowhere, so that both its neighbours are a gap away:
    # comparisons with NaN are false.
    ca = np.array([residue.ca for residue in chain.residues])
    ca[~(np.abs(ca) < _FARTHEST).all(axis=1)] = np.nan
    steps = np.diff(ca, axis=0)
    if cell is not None:
        follows = np.diff([residue.number for residue in chain.residues]) == 1
        crossing = follows & ~_is_step(steps) & np.isfinite(steps).all(1)
        nearest = _nearest_images(steps, cell)
        crossing &= _is_step(nearest)
        ca[1:] += np.cumsum(np.where(crossing[:, None], nearest - steps, 0), axis=0)
        steps = np.where(crossing[:, None], nearest, steps)
    near = _is_step(steps)
    known = np.array([residue.name in LETTERS for residue in chain.residues])
    bonded = np.r_[False, near] | np.r_[near, False]
    left_out.update(chain.residues[index].name for index in np.flatnonzero(bonded & ~known))
    gaps = np.flatnonzero(~(near & known[:-1] & known[1:])) + 1
    edges = [0, *gaps.tolist(), len(ca)]
    return [(a, ca[a:b]) for a, b in itertools.pairwise(edges) if b - a >= SHORTEST]


def _is_step(steps: NDArray[np.float64]) -> NDArray[np.bool_]:
    lengths = np.linalg.norm(steps, axis=1)
    return np.asarray((lengths > STEP[0]) & (lengths < STEP[1]))


def _nearest_images(steps: NDArray[np.float64], cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n, 3] the shortest of what is ``steps`` [n, 3] but for whole vectors of ``cell``."""
    inside = steps - np.rint(steps @ np.linalg.inv(cell)) @ cell
    images = inside[:, None] + _IMAGES @ cell
    lengths = np.linalg.norm(images, axis=2)
    return np.asarray(images[np.arange(len(steps)), lengths.argmin(1)])


def distinct(sequences: Sequence[str]) -> list[int]:
    """Indices, in order, of the sequences that are no part of another (of equal ones the first is
    kept)."""
    holders: dict[str, list[int]] = defaultdict(list)
    kept = []
    for index in sorted(range(len(sequences)), key=lambda i: (-len(sequences[i]), i)):
        sequence = sequences[index]
        # A sequence that holds this one holds its first window.
        if any(sequence in sequences[other] for other in holders.get(sequence[:_WINDOW], ())):
            continue
        kept.append(index)
        for start in range(len(sequence) - _WINDOW + 1):
            holders[sequence[start : start + _WINDOW]].append(index)
    return sorted(kept)


def cluster(sequences: Sequence[str]) -> NDArray[np.int64]:
    """[sequences] the index of each sequence's representative: greedy, from the longest down.

    A sequence joins the first of its candidates with which it aligns at ``IDENTITY`` (global
    alignment, BLOSUM62), and else becomes a representative. Candidates are the ``MOST_CANDIDATES``
    representatives that share most words of ``WORD`` residues with it, and at least a
    ``LEAST_SHARED``-th of its own (the idea of CD-HIT, Li & Godzik 2006): a pair of identity p
    shares p^3 of its words by its places alone, an eighth at 50%.
    """
    module = gemmi()
    scoring = module.AlignmentScoring("b")
    # By length, then by content: the clusters do not depend on the order in which files are read.
    order = sorted(range(len(sequences)), key=lambda i: (-len(sequences[i]), sequences[i]))
    holders: dict[str, array[int]] = defaultdict(lambda: array("q"))
    representative = np.arange(len(sequences))
    for place, index in enumerate(order):
        sequence = sequences[index]
        words = {sequence[start : start + WORD] for start in range(len(sequence) - WORD + 1)}
        known = [np.frombuffer(holders[word], dtype=np.int64) for word in words if word in holders]
        shared = np.bincount(np.concatenate([np.zeros(0, dtype=np.int64), *known]))
        # A buffer that is looked at cannot grow.
        del known
        for other in np.argsort(-shared, kind="stable")[:MOST_CANDIDATES]:
            if shared[other] * LEAST_SHARED < len(words):
                continue
            aligned = module.align_string_sequences(
                list(sequence), list(sequences[order[other]]), [], scoring
            )
            if aligned.match_count >= IDENTITY * len(sequence):
                representative[index] = order[other]
                break
        else:
            for word in words:
                holders[word].append(place)
    return representative


def merged(labels: NDArray[np.int64], together: Sequence[object]) -> NDArray[np.int64]:
    """``labels`` [n] made coarser until items of equal ``together`` [n] have equal labels (crops of
    one chain)."""
    parent = {int(label): int(label) for label in labels}

    def root(label: int) -> int:
        while parent[label] != label:
            label = parent[label]
        return label

    first: dict[object, int] = {}
    for label, key in zip(labels.tolist(), together, strict=True):
        one, other = root(first.setdefault(key, label)), root(label)
        parent[max(one, other)] = min(one, other)
    return np.array([root(label) for label in labels.tolist()], dtype=np.int64)
