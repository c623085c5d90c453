"""Files that a reader, or a crash, never meets half written; and reading one that a stranger wrote:
it never waits, follows no link, reads no more than it should, and shows no raw text."""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from equivbench.errors import FailedError

FILE_LIMIT = 32 * 2**20
"""Bytes of a file of results. A record with the errors of 20,000 groups in each of 20 evaluations
takes 16 MB."""
BRACKET_LIMIT = 100_000
"""Lists and objects in one file; more would take gigabytes as Python objects. The shipped records
hold some hundreds."""
DEPTH_LIMIT = 32
"""Levels of lists and objects; a record has 5, a model's config a few more."""
STRING_LIMIT = 20_000
"""Characters of one string; the longest in earnest is the traceback of a failed run."""
OBJECT_LIMIT = 10_000
"""Entries of one object; the largest in earnest are the reasons, some for every trace point."""
NUMBERS = frozenset({int, float})
"""The types of which lists are passed over where only texts and nulls matter: a record has
thousands of numbers."""
_FORMATS = {
    b"\xef\xbb\xbf": "it begins with a byte order mark; save it as plain UTF-8",
    b"\xff\xfe": "it is UTF-16 text; save it as plain UTF-8",
    b"\xfe\xff": "it is UTF-16 text; save it as plain UTF-8",
    b"\x1f\x8b": "it is compressed (gzip); unpack it",
    b"PK\x03\x04": "it is compressed (zip); unpack it",
    b"\x28\xb5\x2f\xfd": "it is compressed (zstd); unpack it",
    b"BZh": "it is compressed (bzip2); unpack it",
    b"\xfd7zXZ": "it is compressed (xz); unpack it",
}
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
"""Control characters and those that hide or turn text round; tabs and line feeds are let
through."""
_KEY = re.compile(rb'"[ \t\r\n]*:')


def read_bounded(path: Path, *, follow: bool = True) -> bytes:
    """The bytes of a regular file of at most ``FILE_LIMIT``; raises ``FailedError`` naming it for
    anything else.

    A pipe, socket or device is refused without waiting for it, and a symbolic link unless
    ``follow``: what somebody sends must not point at the reader's own files.
    """
    flags = (
        os.O_RDONLY
        | getattr(os, "O_NONBLOCK", 0)
        | getattr(os, "O_NOCTTY", 0)
        | getattr(os, "O_CLOEXEC", 0)
    )
    name = shown(path)
    try:
        if not follow and path.is_symlink():
            raise FailedError(
                f"{name} is a symbolic link, which is not followed; put the file itself there"
            )
        # What is not a regular file is not even opened: opening can act on a device.
        if not stat.S_ISREG(path.stat().st_mode):
            raise FailedError(f"{name} is not a regular file; remove it")
        descriptor = os.open(path, flags)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise FailedError(f"{name} is not a regular file; remove it")
            data = file.read(FILE_LIMIT + 1) if status.st_size <= FILE_LIMIT else b""
    except (OSError, ValueError) as error:
        raise FailedError(
            f"cannot read {name}: {getattr(error, 'strerror', None) or error}"
        ) from error
    if status.st_size > FILE_LIMIT or len(data) > FILE_LIMIT:
        raise FailedError(
            f"{name} has {max(status.st_size, len(data))} bytes, "
            f"more than the {FILE_LIMIT} that are read; split it"
        )
    return data


def not_json(data: bytes) -> str | None:
    """Why ``data`` is not worth decoding as JSON: another format, not UTF-8, or brackets without
    end; None if it is."""
    for magic, reason in _FORMATS.items():
        if data.startswith(magic):
            return reason
    if b"\0" in data:
        return "it holds zero bytes: it is binary or UTF-16, not UTF-8 text"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"it is not UTF-8 text (byte {error.start})"
    brackets = data.count(b"[") + data.count(b"{")
    if brackets > BRACKET_LIMIT:
        return f"it holds {brackets} lists and objects, more than {BRACKET_LIMIT}"
    return None


def hidden(data: bytes) -> Iterator[str]:
    """What valid JSON in ``data`` can hide from a reader: keys given twice, unseen characters,
    endless text and nesting."""
    try:
        value = msgspec.json.decode(data)
    except RecursionError:
        yield f"it nests deeper than {DEPTH_LIMIT} levels"
        return
    # Most files are plain ASCII, where only the length of a text is left to look at.
    plain = data.isascii() and b"\\" not in data and b"\x7f" not in data
    keys = 0
    stack: list[tuple[Any, str, int]] = [({"": value} if isinstance(value, str) else value, "", 0)]
    while stack:
        value, path, depth = stack.pop()
        if depth > DEPTH_LIMIT:
            yield f"it nests deeper than {DEPTH_LIMIT} levels at {shown(path)}"
            return
        if isinstance(value, dict):
            keys += len(value)
            if len(value) > OBJECT_LIMIT:
                yield f"{path or 'it'} has {len(value)} entries, more than {OBJECT_LIMIT}"
                return
            for key in value:
                if not plain or len(key) > STRING_LIMIT:
                    yield from _text(key, f"a key of {path or 'the record'}")
            items: Iterable[tuple[Any, Any]] = value.items()
        elif isinstance(value, list) and not NUMBERS.issuperset(map(type, value)):
            items = enumerate(value)
        else:
            continue
        for key, item in items:
            kind = type(item)
            if kind is dict or kind is list:
                stack.append((item, f"{path}.{key}" if path else str(key), depth + 1))
            elif kind is str and (not plain or len(item) > STRING_LIMIT):
                yield from _text(item, f"{path}.{key}" if path else str(key))
    # Where no string holds an escape, what looks like a key is one, or lies in a text such as ":
    # so": at most too many are found.
    if b"\\" in data or len(_KEY.findall(data)) != keys:
        yield from (
            f"the key {shown(key)!r} is given twice in one object" for key in _repeated(data)
        )


def shown(text: object, most: int = 400) -> str:
    """``text`` on one line of at most some ``most`` characters, with what could act on a terminal
    or mislead an eye escaped."""
    whole = str(text)
    cut = whole if len(whole) <= most else f"{whole[: most // 2]} ... {whole[-most // 2 :]}"
    if cut.isprintable() and not _UNSEEN.search(cut):
        return cut
    return "".join(
        char if char.isprintable() and not _UNSEEN.match(char) else ascii(char)[1:-1]
        for char in cut
    )


def _text(text: str, where: str) -> Iterator[str]:
    if len(text) > STRING_LIMIT:
        yield f"{shown(where)} has {len(text)} characters, more than {STRING_LIMIT}"
    found = _UNSEEN.search(text)
    if found is not None:
        yield f"{shown(where)} holds the unseen character U+{ord(found.group()):04X}"


def _repeated(data: bytes) -> list[str]:
    repeated: dict[str, None] = {}

    def note(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                repeated[key] = None
            seen.add(key)

    try:
        json.loads(data, object_pairs_hook=note)
    except (
        ValueError,
        RecursionError,
    ):  # what msgspec reads and json does not, such as integers of 5,000 digits
        return []
    return list(repeated)


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
