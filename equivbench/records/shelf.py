"""What took long to work out and is kept in the cache, by key. Records are the only truth: all of
this may be deleted at any time, and is worked out again.

It lies in the cache of the reader and not beside the records: a results folder may be read-only, in
git, or a stranger's, and whoever could put a verdict beside records could write it himself.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import secrets
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from equivbench.environment import cache_dir, package_versions
from equivbench.errors import FailedError
from equivbench.records.files import write_atomically

SEGMENT = 4000
"""Most values in one file, so that few are lost with a process and few are in memory at once."""
MOST_SEGMENTS = 64
"""With more files than this what still counts is written into few."""
OTHER_VERSIONS = 2
"""Of how many other versions of the code what they worked out is left where it is."""
_FAST = 1
"""The level of zlib."""
_DECIDES = (".py", ".json")
"""Files of the package that decide what comes out: code, and the cards of data."""


class Shelf:
    """Values (JSON) by key, in a folder of the cache that is that of ``place`` and of the version
    of the code.

    Every addition is a file of its own, written atomically, and nothing is ever changed: any number
    of processes may read and add at a time without a lock, on a network's disk too. Where the cache
    cannot be written nothing is kept.
    """

    def __init__(self, name: str, place: str) -> None:
        own = hashlib.blake2b(place.encode(errors="surrogateescape"), digest_size=16).hexdigest()
        self.folder = cache_dir() / "records" / code_digest() / own / name

    def items(self) -> Iterator[tuple[bytes, msgspec.Raw]]:
        """(key, value) of all, oldest first; the last of several values of a key counts."""
        for file in self._segments():
            # Gone since, cut, or someone's hand in it: it is worked out again.
            with contextlib.suppress(OSError, zlib.error, msgspec.DecodeError):
                data = zlib.decompress(file.read_bytes())
                yield from msgspec.json.decode(data, type=list[tuple[bytes, msgspec.Raw]])

    def add(self, values: Sequence[tuple[bytes, bytes]]) -> None:
        """Keep ``values``, some thousands at most, if the cache can be written."""
        if not values:
            return
        _forget_other_versions(self.folder.parents[1])
        data = msgspec.json.encode([(key, msgspec.Raw(value)) for key, value in values])
        # They sort by time.
        name = f"{time.time_ns():020d}-{secrets.token_hex(4)}.json.z"
        with contextlib.suppress(FailedError):
            write_atomically(self.folder / name, zlib.compress(data, _FAST), durable=False)

    def tidy(self, counts: Callable[[bytes], bool]) -> None:
        """Where there are many files, write the last value of each key that ``counts`` into few."""
        old = self._segments()
        if len(old) <= MOST_SEGMENTS:
            return
        last = {key: number for number, (key, _) in enumerate(self.items())}
        kept: list[tuple[bytes, bytes]] = []
        for number, (key, value) in enumerate(self.items()):
            if last.get(key) == number and counts(key):
                kept.append((key, bytes(value)))
            if len(kept) == SEGMENT:
                self.add(kept)
                kept = []
        self.add(kept)
        for file in old:
            with contextlib.suppress(OSError):
                file.unlink()

    def _segments(self) -> list[Path]:
        return sorted(self.folder.glob("*.json.z"))


@functools.cache
def code_digest() -> str:
    """Of all that decides what is worked out of the same bytes: this package's code, its entry
    points, and the versions of Python and of what it computes with."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(each for each in package.rglob("*") if each.suffix in _DECIDES):
        digest.update(file.relative_to(package).as_posix().encode() + b"\0")
        digest.update(hashlib.blake2b(file.read_bytes()).digest())
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        points = importlib.metadata.distribution("equivbench").read_text("entry_points.txt")
        digest.update((points or "").encode())
    digest.update(msgspec.json.encode(package_versions(("msgspec", "numpy", "scipy"))))
    return digest.hexdigest()


def _forget_other_versions(version: Path) -> None:
    """Delete what the oldest other versions of the code worked out, where this one is new."""
    if version.exists():
        return
    with contextlib.suppress(OSError):
        others = sorted(version.parent.iterdir(), key=lambda each: each.stat().st_mtime)
        for old in others[:-OTHER_VERSIONS]:
            shutil.rmtree(old, ignore_errors=True)
