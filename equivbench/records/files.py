"""Writing a file so that a reader, or a crash, never meets half of it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

import msgspec

from equivbench.errors import FailedError


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, folders made as needed; raises ``FailedError`` and leaves no trace if it cannot.

    The bytes go to a hidden file beside ``path``, to the disk, and only then under the name.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise FailedError(f"cannot write {path}: {reason}; check the folder's permissions and the free space") from error


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_lines(values: Iterable[msgspec.Struct], path: Path) -> Path:
    """Write ``values`` atomically, a line of JSON each, and return ``path``; raises as :func:`write_atomically`."""
    write_atomically(path, b"".join(msgspec.json.encode(value) + b"\n" for value in values))
    return path
