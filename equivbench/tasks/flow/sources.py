"""Where each flow data set's file comes from: shipped, cropped from the shipped one, or gathered
once from any folder of PDB or mmCIF files that the user has. Imports no torch."""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from equivbench.errors import EquivbenchWarning, FailedError
from equivbench.tasks.base import TaskData
from equivbench.tasks.flow.table import MOST_SPREAD, RESIDUES, gather, write
from equivbench.tasks.flow.traces import (
    Chain,
    UnusableFileError,
    chains_of,
    content_of,
    gemmi,
    suffix_of,
)
from equivbench.tasks.storage import ArchiveSource, location

SHIPPED = Path(__file__).parent / "data"
NAME = "ca-folder"
LICENCES = {
    "structures": "as their source states; these are the user's own files, and equivbench does not "
    "distribute them"
}
_NAMED = 5
"""Skipped files that the warning names."""
_VERSION = "1"
"""Of the rules by which files become backbones: part of the cache's key."""


def ca_small() -> ArchiveSource:
    """The set shipped in the package."""
    return ArchiveSource("ca-small", "flow", SHIPPED, _load)


def ca_crops_64() -> ArchiveSource:
    """Windows of at most 64 residues of the shipped set."""
    return ArchiveSource("ca-small", "flow", SHIPPED, _load_crops)


def ca_folder() -> FolderSource:
    """The user's own structures."""
    return FolderSource(NAME, "flow", SHIPPED, _load, build)


def _load(path: Path) -> TaskData:
    from equivbench.tasks.flow.data import load

    return load(path)


def _load_crops(path: Path) -> TaskData:
    from equivbench.tasks.flow.data import load_crops

    return load_crops(path, "ca-crops-64")


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
        folder, files = _listing()
        state = [
            f"{file.relative_to(folder)} {stat.st_size} {stat.st_mtime_ns}" for file, stat in files
        ]
        key = hashlib.sha256(
            "\n".join([_VERSION, str(folder.resolve()), *state]).encode()
        ).hexdigest()[:16]
        return super().path().parent / key / f"{self.name}.npz"


@dataclass
class _Skipped:
    """The files that were left out, for one warning and for the card."""

    first: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, reason: UnusableFileError) -> None:
        self.reasons[str(reason).split(" (")[0]] += 1
        if len(self.first) < _NAMED:
            self.first.append(f"{name} ({reason})")

    def sentence(self, folder: Path, files: int) -> str:
        number = self.reasons.total()
        counts = ", ".join(f"{reason}: {count}" for reason, count in self.reasons.most_common())
        more = f" and {number - len(self.first)} more" if number > len(self.first) else ""
        named = ", ".join(self.first)
        return f"{number} of {files} files in {folder} are left out ({counts}): {named}{more}"


def build(out: Path) -> None:
    """Gather the user's folder into ``out`` and its cards; see :class:`FolderSource`."""
    module = gemmi()
    folder, files = _listing()
    skipped = _Skipped()
    # Unusable files first, as the reason why nothing is left.
    try:
        table, counts = gather(_chains(folder, [file for file, _ in files], skipped), str(folder))
    except FailedError as error:
        raise FailedError(
            f"{error}; {skipped.sentence(folder, len(files))}" if skipped.first else str(error)
        ) from error
    recipe = {
        "source": f"{len(files)} structure files of the user's folder, "
        f"{sum(stat.st_size for _, stat in files)} bytes",
        "files left out": dict(skipped.reasons),
        "tools": {"gemmi": module.__version__},
        "chains": f"unbroken stretches of {RESIDUES[0]} residues or more of the first models, "
        f"cropped to {RESIDUES[1]}; "
        f"distinct by sequence; radius of gyration over N^(1/3) below {MOST_SPREAD} A",
    }
    write(table, out, counts=counts, recipe=recipe, licences=LICENCES)
    if skipped.first:
        warnings.warn(skipped.sentence(folder, len(files)), EquivbenchWarning, stacklevel=2)


def _listing() -> tuple[Path, list[tuple[Path, os.stat_result]]]:
    """(the folder, its structure files, sub-folders included, in the order of their paths)."""
    folder = location("CA_FOLDER", NAME)
    if not folder.is_dir():
        raise FailedError(
            f"{folder} is not a folder; set EQUIVBENCH_DATA_CA_FOLDER to a folder of PDB or mmCIF "
            "files"
        )
    found = sorted(
        path for path in folder.rglob("*") if suffix_of(path.name) is not None and path.is_file()
    )
    if not found:
        raise FailedError(
            f"{folder} has no .pdb, .ent, .cif or .mmcif file, plain or .gz; set "
            "EQUIVBENCH_DATA_CA_FOLDER to another"
        )
    return folder, [(path, path.stat()) for path in found]


def _chains(folder: Path, files: list[Path], skipped: _Skipped) -> Iterator[Chain]:
    """The unbroken chains of one file after another; only their CA traces are kept."""
    for index, file in enumerate(files):
        if sys.stderr.isatty():
            sys.stderr.write(
                f"\r{index + 1}/{len(files)} files" + ("\n" if index + 1 == len(files) else "")
            )
        name = file.relative_to(folder).as_posix()
        try:
            yield from chains_of(content_of(file), file.name, name)
        except UnusableFileError as reason:
            skipped.add(name, reason)
