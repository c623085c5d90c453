"""Files that a reader, or a crash, never meets half written; and reading one that a stranger wrote:
it never waits, follows no link, reads no more than it should, and shows no raw text."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator
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
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Letters and marks that show nothing, or choose another form of the letter before them."""
MOST_MARKS = 3
"""Combining marks on one letter; pointed Hebrew has three."""
_Path = tuple[Any, ...]
"""Where something lies: nothing, or the path of what it lies in and its key there."""
_LOCK_SECONDS = 30.0
_KEY = re.compile(rb'"[ \t\r\n]*:')


def read_bounded(path: Path, *, follow: bool = True, limit: int = FILE_LIMIT) -> bytes:
    """The bytes of a regular file of at most ``limit``; raises ``FailedError`` naming it for
    anything else.

    A pipe, socket or device is refused without waiting for it, and a symbolic link unless
    ``follow``: what somebody sends must not point at the reader's own files.
    """
    flags = (
        os.O_RDONLY
        | getattr(os, "O_NONBLOCK", 0)
        | getattr(os, "O_NOCTTY", 0)
        | getattr(os, "O_CLOEXEC", 0)
        | (0 if follow else getattr(os, "O_NOFOLLOW", 0))
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
            data = file.read(limit + 1) if status.st_size <= limit else b""
    except (OSError, ValueError) as error:
        raise FailedError(
            f"cannot read {name}: {getattr(error, 'strerror', None) or error}"
        ) from error
    if status.st_size > limit or len(data) > limit:
        raise FailedError(
            f"{name} has {max(status.st_size, len(data))} bytes, "
            f"more than the {limit} that are read; split it"
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
    # Paths are made where there is something to say: in nearly no file.
    whole = {"": value} if isinstance(value, str) else value
    stack: list[tuple[Any, _Path, int]] = [(whole, (), 0)]
    while stack:
        value, path, depth = stack.pop()
        if depth > DEPTH_LIMIT:
            yield f"it nests deeper than {DEPTH_LIMIT} levels at {shown(_dotted(path))}"
            return
        if isinstance(value, dict):
            keys += len(value)
            if len(value) > OBJECT_LIMIT:
                named = _dotted(path) or "it"
                yield f"{named} has {len(value)} entries, more than {OBJECT_LIMIT}"
                return
            for key in value:
                if not plain or len(key) > STRING_LIMIT:
                    yield from _text(key, f"a key of {_dotted(path) or 'the record'}")
            items: Iterable[tuple[Any, Any]] = value.items()
        elif isinstance(value, list) and not NUMBERS.issuperset(map(type, value)):
            items = enumerate(value)
        else:
            continue
        for key, item in items:
            kind = type(item)
            if kind is dict or kind is list:
                stack.append((item, (path, key), depth + 1))
            elif kind is str and (not plain or len(item) > STRING_LIMIT):
                yield from _text(item, _dotted((path, key)))
    # Where no string holds an escape, what looks like a key is one, or lies in a text such as ":
    # so": at most too many are found.
    if b"\\" in data or len(_KEY.findall(data)) != keys:
        yield from (
            f"the key {shown(key)!r} is given twice in one object" for key in _repeated(data)
        )


def _dotted(path: _Path) -> str:
    """``trace.0.test`` for the nested pairs of the walk, the last part last."""
    parts = []
    while path:
        path, key = path
        parts.append(str(key))
    return ".".join(reversed(parts))


def shown(text: object, most: int = 400) -> str:
    """``text`` on one line of at most some ``most`` characters, with what could act on a terminal
    or mislead an eye escaped."""
    whole = str(text)
    cut = whole if len(whole) <= most else f"{whole[: most // 2]} ... {whole[-most // 2 :]}"
    if cut.isprintable() and (cut.isascii() or not _misleading(cut)):
        return cut
    return "".join(
        char
        if char.isprintable() and not _BLANK.match(char) and not unicodedata.combining(char)
        else ascii(char)[1:-1]
        for char in cut
    )


def _misleading(text: str) -> str | None:
    """What ``text`` holds that an eye does not see, or cannot read: unseen characters, piles of
    combining marks; None if nothing. Tabs and line feeds are let through."""
    marks = 0
    for char in text:
        if (not char.isprintable() and char not in "\t\n") or _BLANK.match(char):
            return f"the unseen character U+{ord(char):04X}"
        marks = marks + 1 if unicodedata.category(char) in ("Mn", "Me") else 0
        if marks > MOST_MARKS:
            return f"more than {MOST_MARKS} combining marks on one letter"
    return None


def _text(text: str, where: str) -> Iterator[str]:
    if len(text) > STRING_LIMIT:
        yield f"{shown(where)} has {len(text)} characters, more than {STRING_LIMIT}"
    found = _misleading(text)
    if found is not None:
        yield f"{shown(where)} holds {found}"


def not_finite(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """(path, number) of everything in nested dicts and lists that is NaN or infinite, with the path
    as the record's ``reasons`` write it: ``trace.3.test.floor``."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from not_finite(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, float) and not math.isfinite(value):
        yield path, value


def number_that_is_none(data: bytes) -> str | None:
    """Where ``data``, which would else be JSON, says NaN or Infinity, as a sentence; None if
    nowhere. Other programs write these words, and JSON has none for them."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    for path, number in not_finite(value):
        return f"{path} is {number}; a value that was not measured is null with a reason"
    return None


def strange_letter(text: str) -> str:
    """The first character of ``text`` that is not plain ASCII, with its name."""
    letter = next(char for char in text if not (char.isascii() and char.isprintable()))
    return f"U+{ord(letter):04X} ({unicodedata.name(letter, 'a control character')})"


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


def write_atomically(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write ``data`` to ``path``, folders made as needed; raises ``FailedError`` and leaves no
    trace if it cannot.

    The bytes go to a hidden file beside ``path``, to the disk, and only then under the name. What
    need not survive a power cut is not ``durable``: it does not wait for the disk.
    """
    _place(path, data, _rename, durable)


def create_atomically(path: Path, data: bytes, *, durable: bool = True) -> bool:
    """The same, unless something has the name ``path`` already: then nothing is changed, and False
    is returned. Of several processes that create one name at a time one gets it."""
    return _place(path, data, _rename_if_free, durable)


def _rename(temporary: Path, path: Path) -> bool:
    temporary.replace(path)
    return True


def _rename_if_free(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)  # fails where there is something, unlike a renaming
    except FileExistsError:
        return False
    except OSError:
        # A file system without hard links: the name is claimed by an empty file first.
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        except FileExistsError:
            return False
        temporary.replace(path)
    return True


def _place(path: Path, data: bytes, name: Callable[[Path, Path], bool], durable: bool) -> bool:
    """Write ``data`` to a hidden file beside ``path`` and let ``name`` give it that name; whether
    it did."""
    temporary = path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            named = name(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        if durable:
            _sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise FailedError(
            f"cannot write {path}: {reason}; check the folder's permissions and the free space"
        ) from error
    return named


@contextlib.contextmanager
def alone_with(path: Path) -> Iterator[None]:
    """Inside the block no other process is in a block of the same ``path``, which can be read and
    written as one act. Raises ``FailedError`` where the folder cannot be written, or another
    process keeps the file for half a minute."""
    import filelock  # by those who add to files alone: no command waits for this import

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.parent / f".{path.name}.lock", timeout=_LOCK_SECONDS)
        lock.acquire()
    except filelock.Timeout:
        raise FailedError(f"another process keeps {path}; wait for it to end") from None
    except OSError as error:
        raise FailedError(
            f"cannot write {path}: {error.strerror or error}; check the folder's permissions and "
            "the free space"
        ) from error
    try:
        yield
    finally:
        lock.release()


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
