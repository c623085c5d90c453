"""Writing a file so that a reader, or a crash, never meets half of it; files of one JSON object a
line."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import msgspec

from equivbench.errors import FailedError
from equivbench.records.untrusted import read_bounded, shown

T = TypeVar("T")


@runtime_checkable
class Identified(Protocol):
    """A measurement that knows what it is of."""

    @property
    def identity(self) -> tuple[str, ...]:
        """What it is of, and where it was made: of two with the same identity in one file the newer
        one counts."""


I = TypeVar("I", bound=Identified)


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, folders made as needed; raises ``FailedError`` and leaves no
    trace if it cannot.

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
        raise FailedError(
            f"cannot write {path}: {reason}; check the folder's permissions and the free space"
        ) from error


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_lines(values: Iterable[object], path: Path) -> Path:
    """Write ``values`` atomically, a line of JSON each, and return ``path``; raises as
    :func:`write_atomically`."""
    write_atomically(path, b"".join(msgspec.json.encode(value) + b"\n" for value in values))
    return path


def read_lines(path: Path, kind: type[T], what: str) -> list[T]:
    """The values of type ``kind`` in ``path``; raises ``FailedError`` naming file and line if there
    are none or one is not valid.

    ``what`` names one of them in messages, such as ``kernel sample``.
    """
    lines = read_bounded(path).splitlines()
    values = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values.append(msgspec.json.decode(line, type=kind))
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise FailedError(
                f"{shown(path)}, line {number}, is not a {what}: {shown(error)}; measure again"
            ) from error
    if not values:
        raise FailedError(f"{shown(path)} is empty: it holds no {what}s; measure again")
    return values


def merge_lines(values: Iterable[I], path: Path, read: Callable[[Path], Iterable[I]]) -> Path:
    """Write ``values`` into ``path``, in place of those of the same identity; what else ``read``
    finds there stays.

    Raises ``FailedError`` where the file holds anything else or the disk refuses.
    """
    new = {one.identity: one for one in values}
    old = {one.identity: one for one in read(path)} if path.exists() else {}
    return write_lines((old | new).values(), path)
