"""A folder that this user alone can write: what is loaded from it as code runs with the user's
rights."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from equivbench.errors import EquivbenchWarning, FailedError

_ELSEWHERE = "name a folder of your own in EQUIVBENCH_CACHE"
_SYSTEM = (0, 65534)
"""Root, and whoever owns what a container does not map to a user of its own."""


class _OpenToOthersError(FailedError):
    """Somebody else could write a folder or put another in its place."""


def private_folder(path: Path) -> Path:
    """The folder at ``path``, made where it is not there and closed to everybody else (mode 0700),
    by its own name: whoever loads from it by that name follows no link that could be turned
    elsewhere meanwhile.

    Where another user owns it, or could put a folder in its place (a cache that a group shares), it
    is a folder of its own in the user's cache folder, or else in the folder for temporary files,
    and a warning says so once. Where the system knows no owners it is made and nothing else.

    Raises ``FailedError`` where others can write all of these, ``OSError`` where it cannot be made.
    """
    reason: FailedError | OSError
    try:
        return _closed(path)
    except _OpenToOthersError as error:
        reason = error
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        reason = error
    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]
    for base in places_of_ones_own():
        try:
            folder = _closed(_closed(base) / name)
        except (_OpenToOthersError, OSError):
            continue
        _say_once(str(reason), str(folder))
        return folder
    raise reason


def _closed(path: Path) -> Path:
    """The folder at ``path``, closed; raises ``_OpenToOthersError`` where that is not enough."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    named, path = path.absolute(), path.resolve()
    if not hasattr(os, "geteuid"):
        return path
    for part in (named, *named.parents):
        if part.is_symlink() and part.lstat().st_uid not in (os.geteuid(), *_SYSTEM):
            raise _OpenToOthersError(
                f"code is not loaded from {named}: the link {part} belongs to another "
                f"user; {_ELSEWHERE}"
            )
    if path.stat().st_uid != os.geteuid():
        raise _OpenToOthersError(
            f"code is not loaded from {path}, which belongs to another user; {_ELSEWHERE}"
        )
    # Where it is, and where the links on the way to it are.
    for above in dict.fromkeys((*path.parents, *named.parents)):
        found = above.stat()
        if found.st_uid not in (os.geteuid(), *_SYSTEM):
            raise _OpenToOthersError(
                f"code is not loaded from {path}: {above} belongs to another user; {_ELSEWHERE}"
            )
        if _writable_by_others(found) and not found.st_mode & stat.S_ISVTX:
            raise _OpenToOthersError(
                f"code is not loaded from {path}: others can write {above}; close it with"
                f" chmod go-w, or {_ELSEWHERE}"
            )
    path.chmod(0o700)
    return path


def places_of_ones_own() -> Iterator[Path]:
    """Where a folder can be that no cache folder named by the user is part of."""
    import platformdirs

    yield Path(platformdirs.user_cache_dir("equivbench-private", appauthor=False))
    yield Path(tempfile.gettempdir()) / f"equivbench-private-{os.geteuid()}"


@cache
def _say_once(reason: str, folder: str) -> None:
    warnings.warn(f"{reason}; it is kept in {folder}", EquivbenchWarning, stacklevel=4)


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
