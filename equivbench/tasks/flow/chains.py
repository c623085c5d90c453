"""CA traces of the protein chains in a PDB or mmCIF file, which sequences are parts of others, and
clusters of similar ones (gemmi, extra ``structures``). Imports no torch."""

from __future__ import annotations

import gzip
import io
import itertools
import zlib
from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.tasks.storage import required

SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")
"""Of structure files; each also with ``.gz``."""
MOST_BYTES = 200_000_000
"""Of one file, unpacked: the largest entries of the PDB, whole virus capsids, are beyond; parsing
takes about 5 times as much."""
SHORTEST = 40
"""Residues of an unbroken stretch that is worth keeping."""
STEP = (2.7, 4.3)
"""A between neighbouring CA of an unbroken chain: cis peptides have 2.9-3.0, trans 3.8, a missing
residue gives 5 or more."""


IDENTITY = 0.5
"""Identical residues of an alignment over the length of the shorter sequence, at which two belong
together."""
WORD, MOST_CANDIDATES, LEAST_SHARED = 3, 20, 16
"""Residues in a shared word; how many representatives are aligned with a sequence; one word in so
many that they must share."""
_WINDOW = 12


class UnusableFileError(Exception):
    """A structure file that gives no chain; the message says why in a few words."""


@dataclass(frozen=True)
class Chain:
    """An unbroken stretch of a protein chain, from one gap to the next.

    ``name`` is that of the chain, such as ``1UBI_A``; ``start`` counts the chain's residues before
    the stretch; ``sequence`` has one letter a residue (X: unknown); ``ca`` is [residues, 3] float64
    in A.
    """

    name: str
    start: int
    sequence: str
    ca: NDArray[np.float64]


def gemmi() -> Any:
    """The module; raises ``FailedError`` with the line that installs it."""
    return required("gemmi", "structure files are read", "structures")


def suffix_of(name: str) -> str | None:
    """The structure suffix of a file name without ``.gz``, in lower case, or None for another
    file."""
    bare = name.lower().removesuffix(".gz")
    return next((suffix for suffix in SUFFIXES if bare.endswith(suffix)), None)


def content_of(path: Path) -> bytes:
    """The unpacked bytes of a structure file; raises :class:`UnusableFileError` if it cannot be
    read or is enormous."""
    try:
        with path.open("rb") as file:
            return unpacked(file.read(MOST_BYTES + 1), path.name)
    except OSError as error:
        raise UnusableFileError(f"cannot be read ({error.strerror or error})") from error


def unpacked(content: bytes, name: str) -> bytes:
    """``content``, decompressed if ``name`` ends in ``.gz``, never more than ``MOST_BYTES`` of
    it."""
    if name.lower().endswith(".gz"):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
                content = file.read(MOST_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise UnusableFileError("broken gzip file") from error
    if len(content) > MOST_BYTES:
        raise UnusableFileError(f"larger than {MOST_BYTES / 1e6:g} MB")
    if not content.strip():
        raise UnusableFileError("empty")
    return content


def chains_of(content: bytes, name: str, entry: str) -> list[Chain]:
    """The unbroken stretches, ``SHORTEST`` or longer, of the first model's protein chains;
    ``entry`` starts the chains' names.

    A gap is where neighbouring CA atoms are not ``STEP`` apart, or a residue without CA. Of
    alternative places the first counts. Raises :class:`UnusableFileError` if the file cannot be
    parsed, has no protein, or no stretch that long.
    """
    module = gemmi()
    try:
        if suffix_of(name) in (".pdb", ".ent"):
            structure = module.read_pdb_string(content)
        else:
            structure = module.make_structure_from_block(module.cif.read_string(content)[0])
        structure.setup_entities()
    # gemmi maps C++ exceptions to whatever Python has for them.
    except (RuntimeError, ValueError, IndexError, UnicodeDecodeError) as error:
        raise UnusableFileError(
            f"not valid ({str(error).splitlines()[0][:80] if str(error) else type(error).__name__})"
        ) from error
    if len(structure) == 0 or structure[0].count_atom_sites() == 0:
        raise UnusableFileError("no atoms")
    polymers = [(chain.name, list(chain.get_polymer().first_conformer())) for chain in structure[0]]
    traces = [
        (chain, residues)
        for chain, residues in polymers
        if any(_ca(residue) is not None for residue in residues)
    ]
    if not traces:
        raise UnusableFileError("no protein")
    unbroken = [
        Chain(
            f"{entry}_{chain}",
            start,
            "".join(_letter(module, residue.name) for residue in residues[start:stop]),
            ca,
        )
        for chain, residues in traces
        for start, stop, ca in _stretches([_ca(residue) for residue in residues])
    ]
    if not unbroken:
        raise UnusableFileError(f"no unbroken chain of {SHORTEST} residues")
    return unbroken


def _stretches(atoms: list[Any]) -> list[tuple[int, int, NDArray[np.float64]]]:
    """(start, stop, positions) of the stretches between gaps."""
    # A residue without CA has its place nowhere, so that both its neighbours are a gap away:
    # comparisons with NaN are false.
    ca = np.array(
        [
            (atom.pos.x, atom.pos.y, atom.pos.z) if atom is not None else (np.nan,) * 3
            for atom in atoms
        ]
    )
    steps = np.linalg.norm(np.diff(ca, axis=0), axis=1)
    gaps = np.flatnonzero(~((steps > STEP[0]) & (steps < STEP[1]))) + 1
    edges = [0, *gaps.tolist(), len(ca)]
    return [(a, b, ca[a:b]) for a, b in itertools.pairwise(edges) if b - a >= SHORTEST]


def _ca(residue: Any) -> Any:
    return next((atom for atom in residue if atom.name == "CA" and atom.element.name == "C"), None)


def _letter(module: Any, residue: str) -> str:
    # gemmi gives the parent's letter in lower case for a modified residue (selenomethionine: m) and
    # a blank for an unknown one.
    return module.find_tabulated_residue(residue).one_letter_code.upper().strip() or "X"


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
