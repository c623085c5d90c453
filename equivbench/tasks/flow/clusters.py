"""Protein sequences: which are parts of others, and clusters of similar ones (gemmi, extra
``structures``). Imports no torch."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from equivbench.tasks.flow.traces import gemmi

IDENTITY = 0.5
"""Identical residues of an alignment over the length of the shorter sequence, at which two belong
together."""
WORD, MOST_CANDIDATES, LEAST_SHARED = 3, 20, 16
"""Residues in a shared word; how many representatives are aligned with a sequence; one word in so
many that they must share."""
_WINDOW = 12


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
