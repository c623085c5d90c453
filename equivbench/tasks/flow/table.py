"""The table of protein backbones: its columns, which chains qualify and how they are cropped and
split, and what the cards say of them. Imports no torch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.errors import FailedError
from equivbench.tasks.flow.clusters import IDENTITY, cluster, distinct, merged
from equivbench.tasks.flow.traces import SHORTEST, Chain
from equivbench.tasks.ragged import SPLITS, Layout, RaggedColumn, RaggedTable, split_of, split_rule
from equivbench.tasks.storage import plain, read_table, write_table

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
    counts="n_residues",
    unit="cluster",
    items="residues",
    samples="backbones",
    units="clusters",
)
SPLIT_RULE = split_rule(
    f"by cluster of sequences ({IDENTITY:.0%} identity over the shorter one, greedy from the "
    "longest "
    "down; parts of one chain are in one cluster)",
    "the sequence of the cluster's representative",
)


@dataclass(frozen=True)
class _Sample:
    chain: Chain
    start: int
    stop: int

    @property
    def sequence(self) -> str:
        return self.chain.sequence[self.start : self.stop]

    @property
    def ca(self) -> NDArray[np.float64]:
        return self.chain.ca[self.start : self.stop]


def windows(residues: int) -> list[tuple[int, int]]:
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
    samples = [
        _Sample(chain, start, stop)
        for chain in found
        for start, stop in windows(len(chain.sequence))
    ]
    unique = [samples[index] for index in distinct([sample.sequence for sample in samples])]
    compact = [sample for sample in unique if spread(sample.ca) < MOST_SPREAD]
    sequences = [sample.sequence for sample in compact]
    labels = merged(cluster(sequences), [sample.chain.name for sample in compact])
    numbers = np.unique(labels, return_inverse=True)[1]
    counts = {
        f"unbroken chains of {SHORTEST} residues or more": len(found),
        "whole chains and crops": len(samples),
        "distinct": len(unique),
        "compact": len(compact),
        "of these whole chains": sum(
            sample.chain.sequence == sample.sequence for sample in compact
        ),
    }
    ca = [np.zeros((0, 3), dtype=np.int16), *(_stored(sample.ca) for sample in compact)]
    splits = [SPLITS.index(split_of(sequences[label])) for label in labels.tolist()]
    starts = [sample.chain.start + sample.start for sample in compact]
    columns = {
        "ca": np.concatenate(ca),
        "letter": np.frombuffer("".join(sequences).encode(), dtype=np.uint8),
        "n_residues": [len(sequence) for sequence in sequences],
        "start": starts,
        "of": [len(sample.chain.sequence) for sample in compact],
        "cluster": numbers,
        "split": splits,
        "name": [sample.chain.name.encode() for sample in compact],
    }
    table = RaggedTable(
        LAYOUT,
        {name: np.array(rows, dtype=LAYOUT.columns[name].dtype) for name, rows in columns.items()},
    )
    empty = table.empty_splits()
    if empty:
        raise FailedError(
            f"{source} gives {len(compact)} usable backbones and none for {' and '.join(empty)}; "
            f"give more or other chains (unbroken, {RESIDUES[0]} residues or more, compact)"
        )
    return table, counts


def _stored(ca: NDArray[np.float64]) -> NDArray[np.int16]:
    stored: NDArray[np.int16] = np.rint((ca - ca.mean(0)) * PER_ANGSTROM).astype(np.int16)
    return stored


def write(
    table: RaggedTable,
    out: Path,
    *,
    counts: Mapping[str, int],
    recipe: Mapping[str, Any],
    licences: Mapping[str, str],
) -> Path:
    """Write ``out`` (.npz) and its cards, each atomically, the .json last; returns ``out``.

    Raises ``FailedError`` if the folder cannot be written.
    """
    steps = np.linalg.norm(np.diff(table["ca"].astype(np.float64) / PER_ANGSTROM, axis=0), axis=1)
    inside = np.ones(len(steps), dtype=bool)
    inside[table["n_residues"].cumsum()[:-1] - 1] = False
    cropped = table["n_residues"] != table["of"]
    crops = int(cropped.sum())
    quantiles = [round(float(q), 3) for q in np.quantile(steps[inside], [0.01, 0.5, 0.99])]
    facts = {
        "whole_chains": len(cropped) - crops,
        "crops": crops,
        "crops_from_chains": len(set(table["name"][cropped].tolist())),
        "ca_ca_p1_p50_p99": quantiles,
        "counts": dict(counts),
    }
    summary = f"""{len(cropped) - crops} whole unbroken chains and {crops} crops of \
{facts["crops_from_chains"]} longer ones,
{len(table["letter"])} residues, {{bytes}} bytes, SHA-256 `{{sha256}}`.
Neighbouring CA atoms are {"/".join(map(str, quantiles))} A apart (p1/p50/p99). \
What each step left: {plain(facts["counts"])}.
A set for benchmarks that fits into a package, not a training set on the scale of the PDB."""
    return write_table(
        table,
        out,
        facts,
        summary,
        units={
            "ca": f"1/{PER_ANGSTROM} A, about the centre of each sample",
            "letter": "one-letter code of the residue",
        },
        split_rule=SPLIT_RULE,
        licences=licences,
        recipe=recipe,
    )


def read(path: Path) -> tuple[RaggedTable, dict[str, Any]]:
    """(table, card) of ``path``; raises ``FailedError`` if a file is missing, cut short, or of the
    wrong content."""
    return read_table(path, LAYOUT)
