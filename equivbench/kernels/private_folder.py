"""A folder that this user alone can write: what is loaded from it as code runs with the user's
rights."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from equivbench.errors import FailedError

_ELSEWHERE = "name a folder of your own in EQUIVBENCH_CACHE"
_SYSTEM = (0, 65534)
"""Root, and whoever owns what a container does not map to a user of its own."""


def private_folder(path: Path) -> Path:
    """The folder at ``path``, made where it is not there and closed to everybody else (mode 0700),
    by its own name: whoever loads from it by that name follows no link that could be turned
    elsewhere meanwhile.

    Raises ``FailedError`` where it belongs to another user, and where another user could put a
    folder in its place, ``OSError`` where it cannot be made. Where the system knows no owners it
    is made and nothing else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    path = path.resolve()
    if not hasattr(os, "geteuid"):
        return path
    if path.stat().st_uid != os.geteuid():
        raise FailedError(
            f"compiled code is not loaded from {path}, which belongs to another user; {_ELSEWHERE}"
        )
    path.chmod(0o700)
    for above in path.parents:
        found = above.stat()
        if found.st_uid not in (os.geteuid(), *_SYSTEM):
            raise FailedError(
                f"compiled code is not loaded from {path}: {above} belongs to another user;"
                f" {_ELSEWHERE}"
            )
        if _writable_by_others(found) and not found.st_mode & stat.S_ISVTX:
            raise FailedError(
                f"compiled code is not loaded from {path}: others can write {above}; close it with"
                f" chmod go-w, or {_ELSEWHERE}"
            )
    return path


def is_private(file: Path) -> bool:
    """Whether ``file`` is a plain file of this user's that nobody else can write; True where the
    system knows no owners."""
    found = file.lstat()
    if not hasattr(os, "geteuid"):
        return True
    return (
        stat.S_ISREG(found.st_mode)
        and found.st_uid == os.geteuid()
        and not _writable_by_others(found)
    )


def _writable_by_others(found: os.stat_result) -> bool:
    # By a convention of most systems a group with the number of the user is the user's alone.
    own_group = found.st_gid == found.st_uid
    return bool(found.st_mode & (stat.S_IWOTH if own_group else stat.S_IWOTH | stat.S_IWGRP))
