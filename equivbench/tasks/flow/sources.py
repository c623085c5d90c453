"""Where each flow data set's file comes from: shipped, or gathered once from packages that the user
has or from any folder of PDB or mmCIF files. Imports no torch."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from equivbench.errors import EquivbenchWarning, FailedError
from equivbench.tasks.archives import ArchiveSource, location, show_progress
from equivbench.tasks.flow.chains import SUFFIXES, Chain, chains_of, content_of
from equivbench.tasks.flow.listing import structure_files
from equivbench.tasks.flow.mmcif_files import gemmi
from equivbench.tasks.flow.residues import UnusableFileError
from equivbench.tasks.flow.table import MOST_SPREAD, RESIDUES, facts, gather
from equivbench.tasks.flow.windows import build_windows, package
from equivbench.tasks.storage import plain

LICENCES = {
    "structures": "as their source states; these are the user's own files, and equivbench does not "
    "distribute them"
}
_NAMED = 5
"""Skipped files that the warning names."""
_VERSION = "2"
"""Of the rules by which files become backbones: part of the cache's key."""


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
ca_windows_64 = partial(
    ArchiveSource, "ca-windows-64", "flow", _READ, build_windows, origin=package
)
"""All windows of 64 residues of all chains and models in four packages that the user has."""
ca_folder = partial(FolderSource, "ca-folder", "flow", _READ, build)
"""The user's own structures."""
