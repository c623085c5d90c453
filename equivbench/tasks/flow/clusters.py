"""Protein sequences: which are parts of others, and clusters of similar ones (gemmi, extra ``structures``). Imports no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from equivbench.tasks.flow.structures import gemmi

IDENTITY = 0.5
"""Identical residues of an alignment over the length of the shorter sequence, at which two belong together."""
WORD, MOST_CANDIDATES = 3, 20
"""Residues in a shared word, and how many representatives, those that share most words, are aligned with a sequence."""
_WINDOW = 12


def distinct(sequences: Sequence[str]) -> list[int]:
    """Indices, in order, of the sequences that are no part of another (of equal ones the first is kept)."""
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

    A sequence joins the first of its candidates with which it aligns at ``IDENTITY`` (global alignment, BLOSUM62), and
    else becomes a representative. Candidates are the ``MOST_CANDIDATES`` representatives that share most words of ``WORD``
    residues with it, so that the time grows nearly linearly (the idea of CD-HIT, Li & Godzik 2006): at 50% identity a pair
    of L residues shares about L/8 words.
    """
    module = gemmi()
    scoring = module.AlignmentScoring("b")
    postings: dict[str, list[int]] = defaultdict(list)
    representative = np.arange(len(sequences))
    for index in sorted(range(len(sequences)), key=lambda i: (-len(sequences[i]), sequences[i])):
        sequence = sequences[index]
        words = {sequence[start : start + WORD] for start in range(len(sequence) - WORD + 1)}
        shared: dict[int, int] = defaultdict(int)
        for word in words:
            for other in postings.get(word, ()):
                shared[other] += 1
        for other in sorted(shared, key=lambda other: (-shared[other], other))[:MOST_CANDIDATES]:
            aligned = module.align_string_sequences(list(sequence), list(sequences[other]), [], scoring)
            if aligned.match_count >= IDENTITY * len(sequence):
                representative[index] = other
                break
        else:
            for word in words:
                postings[word].append(index)
    return representative


def merged(labels: NDArray[np.int64], together: Sequence[object]) -> NDArray[np.int64]:
    """``labels`` [n] made coarser until items of equal ``together`` [n] have equal labels (crops of one chain)."""
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
