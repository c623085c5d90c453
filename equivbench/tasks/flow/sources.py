"""The flow data sets: the table of protein backbones, which chains qualify and how they are cropped
and split, and where each file comes from: shipped, or gathered once from any folder of PDB or mmCIF
files that the user has. Imports no torch."""

from __future__ import annotations

import hashlib
import itertools
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.errors import EquivbenchWarning, FailedError
from equivbench.tasks.archives import ArchiveSource, location, show_progress
from equivbench.tasks.base import SPLITS
from equivbench.tasks.flow.chains import (
    IDENTITY,
    SHORTEST,
    SUFFIXES,
    Chain,
    chains_of,
    cluster,
    content_of,
    distinct,
    merged,
)
from equivbench.tasks.flow.listing import structure_files
from equivbench.tasks.flow.mmcif_files import gemmi
from equivbench.tasks.flow.residues import UnusableFileError
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
LICENCES = {
    "structures": "as their source states; these are the user's own files, and equivbench does not "
    "distribute them"
}
_NAMED = 5
"""Skipped files that the warning names."""
_VERSION = "2"
"""Of the rules by which files become backbones: part of the cache's key."""


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
        for start, stop in windows(len(chain.sequence))
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
    stored = [np.rint((part.ca - part.ca.mean(0)) * PER_ANGSTROM) for part in parts]
    columns = {
        "ca": np.concatenate([np.zeros((0, 3)), *stored]),
        "letter": np.frombuffer("".join(sequences).encode(), dtype=np.uint8),
        "n_residues": [len(sequence) for sequence in sequences],
        "start": [part.start for part in parts],
        "of": stretches,
        "cluster": np.unique(labels, return_inverse=True)[1],
        "split": [SPLITS.index(split_of(sequences[label])) for label in labels.tolist()],
        "name": [part.name.encode() for part in parts],
    }
    table = RaggedTable(
        LAYOUT,
        {name: np.array(rows, dtype=LAYOUT.columns[name].dtype) for name, rows in columns.items()},
    )
    if empty := empty_splits(table.sizes()):
        raise FailedError(
            f"{source} gives {len(compact)} usable backbones and none for {empty}; give more or "
            f"other chains (unbroken, {RESIDUES[0]} residues or more, compact)"
        )
    return table, counts


def facts(table: RaggedTable, counts: Mapping[str, int]) -> tuple[dict[str, Any], str]:
    """What the cards say of the content: for programs and for people."""
    steps = np.linalg.norm(np.diff(table["ca"].astype(np.float64) / PER_ANGSTROM, axis=0), axis=1)
    inside = np.ones(len(steps), dtype=bool)
    inside[table["n_residues"].cumsum()[:-1] - 1] = False
    cropped = table["n_residues"] != table["of"]
    crops = int(cropped.sum())
    quantiles = [round(float(q), 3) for q in np.quantile(steps[inside], [0.01, 0.5, 0.99])]
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


class FolderSource(ArchiveSource):
    """The backbones of the folder that EQUIVBENCH_DATA_CA_FOLDER names, as one archive in the cache
    per state of the folder.

    Files that cannot be used are left out when it is prepared, with one :class:`EquivbenchWarning`
    that says how many, why, and names some; a ``FailedError`` names the folder if it is missing or
    nothing in it can be used.
    """

    def path(self) -> Path:
        """Where the archive of the folder as it is now is, or would be; raises ``FailedError`` if
        there is no folder."""
        folder, files, others = _listing()
        stats = [(file, file.stat()) for file in files]
        state = [
            *(f"{file.relative_to(folder)} {s.st_size} {s.st_mtime_ns}" for file, s in stats),
            *(f"{file.relative_to(folder)} {reason}" for file, reason in others.items()),
        ]
        lines = "\n".join([_VERSION, str(folder.resolve()), *state])
        key = hashlib.sha256(lines.encode(errors="surrogateescape"))
        return super().path().parent / key.hexdigest()[:16] / f"{self.name}.npz"


def build(out: Path) -> None:
    """Gather the user's folder into ``out`` and its cards; see :class:`FolderSource`."""
    module = gemmi()
    folder, files, others = _listing()
    total = len(files) + len(others)
    left_out = {_name(file, folder): reason for file, reason in others.items()}
    residues: Counter[str] = Counter()
    contents = hashlib.sha256()

    def chains() -> Iterator[Chain]:
        """Of one file after another; only their CA traces are kept."""
        for index, file in enumerate(files):
            show_progress(index + 1, len(files), "files")
            name = _name(file, folder)
            try:
                content = content_of(file)
                contents.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
                found = chains_of(content, file.name, name)
            except UnusableFileError as reason:
                left_out[name] = str(reason)
            else:
                residues.update(found.left_out)
                yield from found

    def skipped() -> str:
        sentences = []
        if left_out:
            counts = ", ".join(f"{reason}: {count}" for reason, count in reasons().most_common())
            named = ", ".join(f"{name} ({left_out[name]})" for name in list(left_out)[:_NAMED])
            more = f" and {len(left_out) - _NAMED} more" if len(left_out) > _NAMED else ""
            sentences.append(
                f"{len(left_out)} of {total} files in {folder} are left out ({counts}): "
                f"{named}{more}"
            )
        if residues:
            sentences.append(
                f"{residues.total()} residues in chains of {folder} are no standard L-amino acids "
                f"and end a chain: {plain(dict(residues.most_common()))}"
            )
        return "; ".join(sentences)

    def reasons() -> Counter[str]:
        return Counter(reason.split(" (")[0] for reason in left_out.values())

    try:
        table, counts = gather(chains(), str(folder))
    except FailedError as error:
        told = skipped()
        raise FailedError(f"{error}; {told}" if told else str(error)) from error
    recipe = {
        "source": f"{len(files)} structure files of the user's folder, "
        f"{sum(file.stat().st_size for file in files)} bytes, SHA-256 of their paths and unpacked "
        f"contents {contents.hexdigest()}",
        "files left out": dict(reasons()),
        "residues left out": dict(residues.most_common()),
        "tools": {"gemmi": module.__version__},
        "chains": f"unbroken stretches of {RESIDUES[0]} residues or more, all of them standard "
        f"L-amino acids, of the first models, cropped to {RESIDUES[1]}; distinct by sequence; "
        f"radius of gyration over N^(1/3) below {MOST_SPREAD} A",
    }
    table.write(out, *facts(table, counts), recipe=recipe, licences=LICENCES)
    if told := skipped():
        warnings.warn(told, EquivbenchWarning, stacklevel=2)


def _name(file: Path, folder: Path) -> str:
    """How cards, messages and chains name a file: by its path in the folder."""
    return os.fsencode(file.relative_to(folder).as_posix()).decode(errors="backslashreplace")


def _listing() -> tuple[Path, list[Path], dict[Path, str]]:
    """(the folder, its structure files, and those that seem to be and are not read)."""
    folder = location("CA_FOLDER", "ca-folder")
    if not folder.is_dir():
        raise FailedError(
            f"{folder} is not a folder; set EQUIVBENCH_DATA_CA_FOLDER to a folder of PDB or mmCIF "
            "files"
        )
    files, others = structure_files(folder)
    if not files:
        named = [f"{_name(path, folder)} is {reason}" for path, reason in others.items()]
        raise FailedError(
            f"{folder} has no {SUFFIXES} file, plain or .gz; set EQUIVBENCH_DATA_CA_FOLDER to "
            f"another{'; '.join(['', *named[:_NAMED]])}"
        )
    return folder, files, others


_READ = "equivbench.tasks.flow.data:load"


ca_small = partial(ArchiveSource, "ca-small", "flow", _READ)
"""The set shipped in the package."""
ca_crops_64 = partial(ArchiveSource, "ca-small", "flow", _READ, arguments=("ca-crops-64",))
"""Windows of at most 64 residues of the shipped set."""
ca_folder = partial(FolderSource, "ca-folder", "flow", _READ, build)
"""The user's own structures."""
