"""Which files of a folder are structures, which look like it and are not read, and why. Imports no
torch."""

from __future__ import annotations

import os
import re
from pathlib import Path

from equivbench.tasks.flow.chains import SUFFIXES, suffix_of

_OTHER_KINDS = re.compile(
    r"\.(?:(?:bcif|mmtf|pdbqt|pqr|gro|pdbml)(?:\.gz)?"
    r"|(?:pdb\d*|ent|cif|mmcif)\.(?:bz2|lzma|xz|z|zip|zst)"
    r"|7z|tar|tar\.\w+|tgz|zip)$"
)
"""Names of structures in formats that are not read, and of archives that may hold some."""


def structure_files(folder: Path) -> tuple[list[Path], dict[Path, str]]:
    """(the structure files of ``folder``, those that seem to be and are not read, with the reason
    of each), both in the order of their paths.

    Sub-folders count, and links to files and folders; a folder that is reached twice counts once.
    """
    read: list[Path] = []
    other: dict[Path, str] = {}
    reached: set[str] = set()

    def unreadable(error: OSError) -> None:
        other[Path(error.filename)] = f"cannot be read ({error.strerror})"

    for parent, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        real = os.path.realpath(parent)
        if real in reached:
            folders.clear()
            continue
        reached.add(real)
        # So that of a folder that is reached twice the first path always counts.
        folders.sort()
        for name in files:
            path = Path(parent, name)
            if path.is_symlink() and not path.exists():
                other[path] = "a link to nothing"
            elif suffix_of(name) is not None:
                if path.is_file():
                    read.append(path)
                else:
                    other[path] = "no regular file"
            elif _OTHER_KINDS.search(name.lower()):
                other[path] = f"not of a kind that is read ({SUFFIXES}, plain or .gz)"
    return sorted(read), dict(sorted(other.items()))
