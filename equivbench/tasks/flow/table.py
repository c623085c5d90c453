"""The table of protein backbones: its columns, which chains qualify, how they are cropped and
split, and what the cards say of them. Imports no torch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.errors import FailedError
from equivbench.tasks.base import SPLITS
from equivbench.tasks.flow.chains import IDENTITY, SHORTEST, Chain, cluster, distinct, merged
from equivbench.tasks.storage import (
    Layout,
    RaggedColumn,
    RaggedTable,
    empty_splits,
    plain,
    split_of,
    split_rule,
)

RESIDUES = (SHORTEST, 256)
"""Fewest and most residues of a sample."""
MOST_SPREAD = 3.6
"""A: radius of gyration over N^(1/3) must be below; compact folds have 2.2-3.2, long helices and
ribosomal tails more."""
PER_ANGSTROM = 100
"""Coordinates are stored in hundredths of an A, about the centre of each sample."""
LAYOUT = Layout(
    kind="backbone",
    columns={
        "ca": RaggedColumn("item", np.int16, (3,)),
        "letter": RaggedColumn("item", np.uint8),  # ASCII
        "n_residues": RaggedColumn("sample", np.int32),
        "start": RaggedColumn("sample", np.int32),  # residues of its chain before the sample
        # Residues of the unbroken stretch that the sample is or is cropped from.
        "of": RaggedColumn("sample", np.int32),
        "cluster": RaggedColumn("sample", np.int32),
        "split": RaggedColumn("sample", np.uint8),
        "name": RaggedColumn("sample", np.bytes_),  # of the chain, such as 1UBI_A
    },
    unit="cluster",
    items="residues",
    positions="ca",
    samples="backbones",
    units={
        "ca": f"1/{PER_ANGSTROM} A, about the centre of each sample",
        "letter": "one-letter code of the residue",
    },
    split_rule=split_rule(
        f"by cluster of sequences ({IDENTITY:.0%} identity over the shorter one, greedy from the "
        "longest down; parts of one chain are in one cluster)",
        "the sequence of the cluster's representative",
    ),
)


def crop_bounds(residues: int) -> list[tuple[int, int]]:
    """(start, stop) of a stretch's samples: all of it, or if it is too long as few windows as cover
    it, equal to one residue."""
    parts = -(-residues // RESIDUES[1])
    edges = [residues * part // parts for part in range(parts + 1)]
    return list(itertools.pairwise(edges))


def spread(ca: NDArray[np.floating]) -> float:
    """Radius of gyration over N^(1/3) of ``ca`` [N, 3], in its unit."""
    return float(np.sqrt(np.square(ca - ca.mean(0)).sum(1).mean()) / len(ca) ** (1 / 3))


def gather(chains: Iterable[Chain], source: str) -> tuple[RaggedTable, dict[str, int]]:
    """The table of what qualifies, and how many chains or samples each step left; memory is that
    of the chains.

    Raises ``FailedError``, naming ``source``, if a split has no sample.
    """
    found = list(chains)
    # Each with the residues of the stretch that it is a window of.
    samples = [
        (
            replace(
                chain,
                start=chain.start + start,
                sequence=chain.sequence[start:stop],
                ca=chain.ca[start:stop],
            ),
            len(chain.sequence),
        )
        for chain in found
        for start, stop in crop_bounds(len(chain.sequence))
    ]
    unique = [samples[index] for index in distinct([part.sequence for part, _ in samples])]
    compact = [(part, of) for part, of in unique if spread(part.ca) < MOST_SPREAD]
    parts, stretches = [part for part, _ in compact], [of for _, of in compact]
    sequences = [part.sequence for part in parts]
    labels = merged(cluster(sequences), [part.name for part in parts])
    counts = {
        f"unbroken chains of {SHORTEST} residues or more": len(found),
        "whole chains and crops": len(samples),
        "distinct": len(unique),
        "compact": len(compact),
        "of these whole chains": sum(of == len(part.sequence) for part, of in compact),
    }
    drawn = [sequences[label] for label in labels.tolist()]
    return tabulated(parts, stretches, labels, drawn, source), counts


def tabulated(
    parts: Sequence[Chain],
    stretches: Sequence[int],
    labels: NDArray[np.int64],
    drawn: Sequence[str],
    source: str,
) -> RaggedTable:
    """The table of ``parts``, each out of a stretch of so many residues, in the cluster of its
    label and in the split that ``drawn`` draws.

    Raises ``FailedError``, naming ``source``, if a split has no sample.
    """
    stored = [np.rint((part.ca - part.ca.mean(0)) * PER_ANGSTROM) for part in parts]
    columns = {
        "ca": np.concatenate([np.zeros((0, 3)), *stored]),
        "letter": np.frombuffer("".join(part.sequence for part in parts).encode(), dtype=np.uint8),
        "n_residues": [len(part.sequence) for part in parts],
        "start": [part.start for part in parts],
        "of": stretches,
        "cluster": np.unique(labels, return_inverse=True)[1],
        "split": [SPLITS.index(split_of(name)) for name in drawn],
        "name": [part.name.encode() for part in parts],
    }
    table = RaggedTable(
        LAYOUT,
        {name: np.array(rows, dtype=LAYOUT.columns[name].dtype) for name, rows in columns.items()},
    )
    if empty := empty_splits(table.sizes()):
        raise FailedError(
            f"{source} gives {len(parts)} usable backbones and none for {empty}; give more or "
            f"other chains (unbroken, {RESIDUES[0]} residues or more, compact)"
        )
    return table


def ca_steps(table: RaggedTable) -> list[float]:
    """Quantiles 0.01, 0.5 and 0.99 of the distances of neighbouring CA atoms, in A."""
    steps = np.linalg.norm(np.diff(table["ca"].astype(np.float64) / PER_ANGSTROM, axis=0), axis=1)
    inside = np.ones(len(steps), dtype=bool)
    inside[table["n_residues"].cumsum()[:-1] - 1] = False
    return [round(float(q), 3) for q in np.quantile(steps[inside], [0.01, 0.5, 0.99])]


def facts(table: RaggedTable, counts: Mapping[str, int]) -> tuple[dict[str, Any], str]:
    """What the cards say of the content: for programs and for people."""
    cropped = table["n_residues"] != table["of"]
    crops = int(cropped.sum())
    quantiles = ca_steps(table)
    card = {
        "whole_chains": len(cropped) - crops,
        "crops": crops,
        "crops_from_chains": len(set(table["name"][cropped].tolist())),
        "ca_ca_p1_p50_p99": quantiles,
        "counts": dict(counts),
    }
    return (
        card,
        f"""{len(cropped) - crops} whole unbroken chains and {crops} crops of \
{card["crops_from_chains"]} longer ones,
{len(table["letter"])} residues, {{bytes}} bytes, SHA-256 `{{sha256}}`.
Neighbouring CA atoms are {"/".join(map(str, quantiles))} A apart (p1/p50/p99). \
What each step left: {plain(counts)}.
A set for benchmarks that fits into a package, not a training set on the scale of the PDB.""",
    )
