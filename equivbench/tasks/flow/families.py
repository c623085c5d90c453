"""Which protein sequences have a stretch in common, so that no part of one tells about a part of
the other: domains of long chains too, which alignments of whole chains do not find (gemmi, extra
``structures``). Imports no torch."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from equivbench.tasks.flow.chains import IDENTITY, LEAST_SHARED, WORD, merged
from equivbench.tasks.flow.mmcif_files import gemmi

PIECE = 64
"""Residues that are compared with others at once: about those of a small domain."""


def pieces(residues: int, length: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of stretches of ``length`` that overlap by a half or more and cover
    ``residues``; all of it if it is shorter."""
    last = max(residues - length, 0)
    for start in [*range(0, last, length // 2), last]:
        yield start, min(start + length, residues)


def families(sequences: Sequence[str]) -> NDArray[np.int64]:
    """[sequences] labels, equal for those that are one family.

    Two are if a piece of ``PIECE`` residues of one (or all of it, if it is shorter) aligns with a
    part of the other at ``IDENTITY`` of its residues (global alignment with a stretch twice as
    long, BLOSUM62), or if further sequences link them so. Stretches are looked at that share a
    ``LEAST_SHARED``-th of the piece's words of ``WORD`` residues, an eighth being expected at half
    identity (the idea of CD-HIT, Li & Godzik 2006).
    """
    module = gemmi()
    scoring = module.AlignmentScoring("b")
    known = {sequence: number for number, sequence in enumerate(sorted({*sequences}))}
    holders: dict[str, array[int]] = defaultdict(lambda: array("q"))
    stretches: list[tuple[int, str]] = []
    for sequence, number in known.items():
        for start, stop in pieces(len(sequence), 2 * PIECE):
            for word in _words(sequence[start:stop]):
                holders[word].append(len(stretches))
            stretches.append((number, sequence[start:stop]))
    owners = np.array([number for number, _ in stretches], dtype=np.int64)
    links: set[tuple[int, int]] = set()
    for sequence, number in known.items():
        for start, stop in pieces(len(sequence), PIECE):
            piece = sequence[start:stop]
            words = _words(piece)
            held = [np.frombuffer(holders[word], dtype=np.int64) for word in words]
            shared = np.bincount(np.concatenate(held), minlength=len(stretches))
            alike = (shared * LEAST_SHARED >= len(words)) & (owners != number)
            for index in np.flatnonzero(alike).tolist():
                other, stretch = stretches[index]
                link = (min(number, other), max(number, other))
                if link in links:
                    continue
                aligned = module.align_string_sequences(list(piece), list(stretch), [], scoring)
                if aligned.match_count >= IDENTITY * len(piece):
                    links.add(link)
    # Both ends of a link are labelled with it, and each sequence with itself.
    ends = [end for link in sorted(links) for end in link]
    labels = np.array([*range(len(known)), *ends], dtype=np.int64)
    keys = [*(("one", number) for number in range(len(known)))]
    keys += [("link", index // 2) for index in range(len(ends))]
    joined = merged(labels, keys)
    return np.asarray(joined[[known[sequence] for sequence in sequences]])


def _words(sequence: str) -> set[str]:
    return {sequence[start : start + WORD] for start in range(len(sequence) - WORD + 1)}
