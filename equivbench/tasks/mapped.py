"""Large archives, memory-mapped: their columns are unpacked once into files of the cache, whose
pages all processes of a machine share. Imports no torch."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.environment import cache_dir
from equivbench.errors import FailedError
from equivbench.records.files import write_atomically
from equivbench.tasks.archives import changed_content, sha256_of

MAPPED_FROM = 64 * 2**20
"""Bytes of unpacked columns from which on an archive is mapped. Smaller ones are read in less time
than their unpacked columns could be checked."""
_INDEX = "columns.json"
_LOCK_SECONDS = 3600.0
"""How long another process may take to unpack the same archive."""


def unpacked_bytes(path: Path) -> int:
    """Bytes of the columns of the archive at ``path``; 0 if it is none or is not there, which
    whoever reads it says."""
    with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        return sum(member.file_size for member in archive.infolist())
    return 0


def mapped_columns(
    path: Path,
    card: Mapping[str, Any],
    names: Iterable[str],
    check: Callable[[Mapping[str, NDArray[Any]]], None],
) -> dict[str, NDArray[Any]]:
    """The columns ``names`` of the archive at ``path``, mapped into memory. Whoever writes to one
    changes a copy of their own.

    They are unpacked by the first who asks, and again where they are no longer what they were then
    (by SHA-256). ``check`` is shown them whenever they were unpacked; what it raises ends the call,
    and nothing is kept.

    Raises ``FailedError`` where the archive is not what its ``card`` says, or the cache cannot hold
    its columns; ``KeyError`` for a column that is not there, and what numpy and zipfile raise if it
    is no archive.
    """
    import filelock  # by those who load large sets alone

    folder = cache_dir() / "datasets" / "unpacked" / card["sha256"]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{folder}.lock", timeout=_LOCK_SECONDS):
            if not _is_whole(folder):
                _unpack(path, card, folder, lambda new: check(_map(new, names)))
            return _map(folder, names)
    except filelock.Timeout:
        raise FailedError(
            f"another process has been unpacking {path.name} for an hour; end it and try again"
        ) from None
    except OSError as error:
        raise FailedError(
            f"the columns of {path.name} ({unpacked_bytes(path) / 1e9:.1f} GB) cannot be kept in "
            f"{folder.parent}: {error.strerror or error}; free some space or set EQUIVBENCH_CACHE "
            "to a folder on another disk"
        ) from error


def _map(folder: Path, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    columns = {}
    for name in names:
        file = folder / f"{name}.npy"
        if not file.is_file():
            raise KeyError(f"{name} is not a file in the archive")
        columns[name] = np.asarray(np.load(file, mmap_mode="c", allow_pickle=False))
    return columns


def _unpack(
    path: Path, card: Mapping[str, Any], folder: Path, check: Callable[[Path], None]
) -> None:
    """Make ``folder`` out of the archive, whole or not at all."""
    if sha256_of(path) != card["sha256"]:
        raise changed_content(path, card)
    # Nobody else is making one, since the lock is held: these were left by a killed process.
    for left in folder.parent.glob(f"{folder.name}.*.partial"):
        shutil.rmtree(left, ignore_errors=True)
    partial = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir()
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                # A member's name decides nothing about where it is written.
                name = Path(member.filename).name
                with archive.open(member, mode="r") as source, open(partial / name, "wb") as column:
                    shutil.copyfileobj(source, column, 2**20)
        check(partial)
        write_atomically(partial / _INDEX, json.dumps(_digests(partial)).encode())
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _is_whole(folder: Path) -> bool:
    """Whether the columns in ``folder`` are those that were unpacked there."""
    try:
        noted = json.loads((folder / _INDEX).read_bytes())
        return bool(noted == _digests(folder))
    except (OSError, ValueError):
        return False


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each column, several at once: hashing lets other threads run."""
    files = sorted(folder.glob("*.npy"))
    with ThreadPoolExecutor() as pool:
        return dict(zip((file.name for file in files), pool.map(sha256_of, files), strict=True))
