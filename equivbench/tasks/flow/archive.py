"""Protein backbones as flat arrays: which chains qualify, how they are cropped, the split by
cluster. Imports no torch."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.errors import FailedError
from equivbench.tasks.flow.clusters import IDENTITY, cluster, distinct, merged
from equivbench.tasks.flow.traces import SHORTEST, Chain
from equivbench.tasks.splits import SPLITS, rule, samples_in, split_of, units_in, without_samples
from equivbench.tasks.storage import plain, read_archive, remedy, write_archive

RESIDUES = (SHORTEST, 256)
"""Fewest and most residues of a sample."""
MOST_SPREAD = 3.6
"""A: radius of gyration over N^(1/3) must be below; compact folds have 2.2-3.2, long helices and
ribosomal tails more."""
PER_ANGSTROM = 100
"""Coordinates are stored in hundredths of an A."""
SPLIT_RULE = rule(
    f"by cluster of sequences ({IDENTITY:.0%} identity over the shorter one, greedy from the longest down; parts of one chain "
    "are in one cluster)",
    "the sequence of the cluster's representative",
)


@dataclass(frozen=True)
class Archive:
    """Backbones with concatenated residues; the unit of independence is the cluster.

    ca [residues, 3] int16, 0.01 A, about the centre of each sample; letter [residues] uint8
    (ASCII); n_residues [samples] int32; start [samples] int32, residues of its chain before the
    sample; of [samples] int32, residues of the unbroken stretch that the sample is or is cropped
    from; cluster [samples] int32; split [samples] uint8, into ``SPLITS``; name [samples] bytes such
    as ``1UBI_A``.
    """

    ca: NDArray[np.int16]
    letter: NDArray[np.uint8]
    n_residues: NDArray[np.int32]
    start: NDArray[np.int32]
    of: NDArray[np.int32]
    cluster: NDArray[np.int32]
    split: NDArray[np.uint8]
    name: NDArray[np.bytes_]

    def sizes(self) -> dict[str, int]:
        """Samples per split."""
        return samples_in(self.split)

    def clusters(self) -> dict[str, int]:
        """Clusters per split."""
        return units_in(self.cluster, self.split)


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


def gather(chains: Iterable[Chain], source: str) -> tuple[Archive, dict[str, int]]:
    """The archive of what qualifies, and how many chains or samples each step left; memory is that
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
    archive = Archive(
        ca=np.concatenate(
            [np.zeros((0, 3), dtype=np.int16), *(_stored(sample.ca) for sample in compact)]
        ),
        letter=np.frombuffer("".join(sequences).encode(), dtype=np.uint8),
        n_residues=np.array([len(sequence) for sequence in sequences], dtype=np.int32),
        start=np.array([sample.chain.start + sample.start for sample in compact], dtype=np.int32),
        of=np.array([len(sample.chain.sequence) for sample in compact], dtype=np.int32),
        cluster=numbers.astype(np.int32),
        split=np.array(
            [SPLITS.index(split_of(sequences[label])) for label in labels.tolist()], dtype=np.uint8
        ),
        name=np.array([sample.chain.name.encode() for sample in compact], dtype=np.bytes_),
    )
    empty = without_samples(archive.split)
    if empty:
        raise FailedError(
            f"{source} gives {len(compact)} usable backbones and none for {' and '.join(empty)}; give more or other chains "
            f"(unbroken, {RESIDUES[0]} residues or more, compact)"
        )
    return archive, counts


def _stored(ca: NDArray[np.float64]) -> NDArray[np.int16]:
    stored: NDArray[np.int16] = np.rint((ca - ca.mean(0)) * PER_ANGSTROM).astype(np.int16)
    return stored


def write(
    archive: Archive,
    out: Path,
    *,
    counts: Mapping[str, int],
    recipe: Mapping[str, Any],
    licences: Mapping[str, str],
) -> Path:
    """Write ``out`` (.npz) and its cards, each atomically, the .json last; returns ``out``.

    Raises ``FailedError`` if the folder cannot be written.
    """
    steps = np.linalg.norm(np.diff(archive.ca.astype(np.float64) / PER_ANGSTROM, axis=0), axis=1)
    inside = np.ones(len(steps), dtype=bool)
    inside[archive.n_residues.cumsum()[:-1] - 1] = False
    whole = int((archive.n_residues == archive.of).sum())
    card = {
        "sizes": archive.sizes(),
        "clusters": archive.clusters(),
        "residues": len(archive.letter),
        "whole_chains": whole,
        "crops": len(archive.n_residues) - whole,
        "crops_from_chains": len(set(archive.name[archive.n_residues != archive.of].tolist())),
        "ca_ca_p1_p50_p99": [
            round(float(q), 3) for q in np.quantile(steps[inside], [0.01, 0.5, 0.99])
        ],
        "counts": dict(counts),
        "units": {
            "ca": f"1/{PER_ANGSTROM} A, about the centre of each sample",
            "letter": "one-letter code of the residue",
        },
        "split_rule": SPLIT_RULE,
        "licences": dict(licences),
        "recipe": dict(recipe),
    }
    return write_archive(out, vars(archive), card, _markdown(card))


def read(path: Path) -> tuple[Archive, dict[str, Any]]:
    """(archive, card) of ``path``; raises ``FailedError`` if a file is missing, cut short, or of
    the wrong content."""
    arrays, card = read_archive(path, [item.name for item in fields(Archive)], "backbone")
    archive = Archive(**arrays)
    residues, samples = len(archive.letter), len(archive.n_residues)
    per_sample = (archive.start, archive.of, archive.cluster, archive.split, archive.name)
    if (
        archive.n_residues.sum() != residues
        or archive.ca.shape != (residues, 3)
        or any(len(a) != samples for a in per_sample)
    ):
        raise FailedError(f"the arrays of {path} disagree in length; {remedy(path)}")
    return archive, card


def _markdown(card: Mapping[str, Any]) -> str:
    table = "\n".join(
        f"| {split} | {card['clusters'][split]} | {card['sizes'][split]} |" for split in SPLITS
    )
    low, middle, high = card["ca_ca_p1_p50_p99"]
    return f"""
| split | clusters | backbones |
|---|---|---|
{table}

{card["whole_chains"]} whole unbroken chains and {card["crops"]} crops of {card["crops_from_chains"]} longer ones,
{card["residues"]} residues, {{bytes}} bytes, SHA-256 `{{sha256}}`.
Neighbouring CA atoms are {low}/{middle}/{high} A apart (p1/p50/p99). What each step left: {plain(card["counts"])}.
A set for benchmarks that fits into a package, not a training set on the scale of the PDB.
"""


def digest(parts: Iterable[str]) -> str:
    """A short key of a list of strings, for a cache."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
