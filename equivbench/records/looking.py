"""Looking at many records: those that have not changed since they were last looked at are known,
the others are looked at by as many processes as there are cores.

What is known of a file holds for the very file: its size, its times and its inode, and for this
version of the code. A record that something is wrong with is looked at each time, as is one from
the future, whose verdict changes with the day.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from equivbench.environment import usable_cores, worker_environment
from equivbench.records.look import NOTHING, Look, Seen, Stamp, see, stamp_of
from equivbench.records.outline import RecordOutline, SharedParts
from equivbench.records.shelf import SEGMENT, Shelf
from equivbench.registry import BUILT_IN, DATASETS, MODELS, PAIRS, TASKS

LEAST_KEPT = 100
"""Fewer records than this are looked at in less time than it takes to look for what is known."""
LEAST_FOR_PROCESSES = 200
"""Fewer are looked at by this process alone."""
BATCH = 32
"""Records that a process is asked for at a time."""
_DEPTH = 5
"""A record lies in results/machine/task/pair/arm/run-id.json."""


@dataclass(slots=True)
class Looked:
    """A file that was looked at, now or earlier."""

    file: Path
    place: str
    """Where it lies below the results folder that a record in its place belongs to: in
    ``machine/task/pair/arm/file``; empty for a file that is not so deep."""
    look: Look
    content: bytes
    """The digest of its bytes; empty where it could not be read."""
    outline: RecordOutline | None
    """Where it was asked for, of a record without problems."""


class Known(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of a file below a results folder."""

    stamp: Stamp
    content: bytes
    look: Look


def look_through(files: Sequence[Path], *, outlined: bool) -> list[Looked]:
    """A look at each of ``files``, in their order; with ``outlined`` the outlines of those that
    nothing is wrong with, too. Equal parts of outlines are shared, and must not be changed."""
    foreign = _foreign()
    places = [_place_of(file) for file in files]
    folders = {folder for folder, _ in places if folder} if len(files) >= LEAST_KEPT else ()
    kept = {folder: KeptLooks(folder) for folder in folders}
    shared = SharedParts()
    found: dict[int, Looked] = {}
    for number, (file, (folder, place)) in enumerate(zip(files, places, strict=True)):
        known = kept[folder].find(place, file, foreign) if folder in kept else None
        if known is not None:
            found[number] = Looked(file, place, known.look, known.content, None)
    if outlined and found:
        _outline(found, kept.values(), shared)
    left = [number for number in range(len(files)) if number not in found]
    seen = see_all([files[number] for number in left], outlined or bool(kept), not foreign)
    try:
        for number, one in zip(left, seen, strict=True):
            outline = None
            if outlined and one.outline != NOTHING:
                outline = shared.share(msgspec.json.decode(one.outline, type=RecordOutline))
            folder, place = places[number]
            found[number] = Looked(files[number], place, one.look, one.content, outline)
            if folder in kept:
                kept[folder].add(place, one, foreign)
    finally:
        for each in kept.values():
            each.close()
    return [found[number] for number in range(len(files))]


class KeptLooks:
    """The looks at the records below the results folder ``folder`` that are in the cache."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._looks, self._outlines = Shelf("looks", folder), Shelf("outlines", folder)
        self._known: dict[bytes, Known] = {}
        for name, value in self._looks.items():
            with contextlib.suppress(msgspec.DecodeError):
                self._known[name] = msgspec.json.decode(value, type=Known)
        self._new: list[tuple[bytes, Known, msgspec.Raw]] = []

    def find(self, place: str, file: Path, foreign: frozenset[str]) -> Known | None:
        """What is known of ``file``, which lies at ``place`` in the folder; None where it has
        changed, or where a declaration of this process has a say in it."""
        known = self._known.get(os.fsencode(place))
        if known is None or foreign & {known.look.pair, known.look.dataset}:
            return None
        return known if known.stamp == stamp_of(file) else None

    def add(self, place: str, seen: Seen, foreign: frozenset[str]) -> None:
        """Keep what was ``seen`` of the file at ``place``, if that is where it belongs and it will
        be the same tomorrow."""
        look = seen.look
        if seen.stamp is None or look.digest is None or look.place != place:
            return
        if foreign & {look.pair, look.dataset}:
            return
        if datetime.fromisoformat(look.digest.created) > datetime.now(UTC):
            return
        known = Known(seen.stamp, seen.content, look)
        self._new.append((os.fsencode(place), known, seen.outline))
        if len(self._new) == SEGMENT:
            self._write()

    def outlines(self) -> Iterator[tuple[bytes, msgspec.Raw]]:
        """(content, outline) of the records that were outlined."""
        return self._outlines.items()

    def close(self) -> None:
        """Write what is new, and tidy up where there are many files."""
        self._write()
        self._looks.tidy(lambda name: os.path.lexists(os.fsencode(self._folder) + b"/" + name))
        contents = {known.content for known in self._known.values()}
        self._outlines.tidy(contents.__contains__)

    def _write(self) -> None:
        # Outlines first: where there is a look there is an outline.
        self._outlines.add([(known.content, bytes(outline)) for _, known, outline in self._new])
        self._looks.add([(name, msgspec.json.encode(known)) for name, known, _ in self._new])
        self._known |= {name: known for name, known, _ in self._new}
        self._new = []


def _outline(found: dict[int, Looked], kept: Iterable[KeptLooks], shared: SharedParts) -> None:
    """Put their outlines to what was ``found``; what has none is taken out, to be looked at."""
    wanted = {each.content for each in found.values()}
    outlines: dict[bytes, RecordOutline] = {}
    for folder in kept:
        for content, value in folder.outlines():
            if content in wanted and content not in outlines:
                with contextlib.suppress(msgspec.DecodeError):
                    outline = msgspec.json.decode(value, type=RecordOutline)
                    outlines[content] = shared.share(outline)
    for number, looked in list(found.items()):
        looked.outline = outlines.get(looked.content)
        if looked.outline is None:
            del found[number]


def see_all(files: Sequence[Path], outlined: bool, by_processes: bool) -> Iterator[Seen]:
    """A look at each of ``files``, in their order. ``by_processes``: whether processes of their own
    see the same; they do not know what was registered in this one."""
    done = 0
    if by_processes and len(files) >= LEAST_FOR_PROCESSES and usable_cores() > 1:
        for seen in _by_processes(files, outlined, usable_cores()):
            yield from seen
            done += len(seen)
    # All, or what a process that died has left.
    for file in files[done:]:
        yield see(file, outlined=outlined)


def _by_processes(files: Sequence[Path], outlined: bool, count: int) -> Iterator[list[Seen]]:
    """Looks at batches of ``files``, in their order, until all are done or a process has died."""
    batches = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    count = min(count, len(batches))
    workers: list[subprocess.Popen[bytes]] = []

    def ask(number: int) -> None:
        stdin = workers[number % count].stdin
        assert stdin is not None
        # One that has died gives no answer.
        with contextlib.suppress(OSError):
            paths = [os.fsencode(file) for file in batches[number]]
            stdin.write(msgspec.json.encode((paths, outlined)) + b"\n")
            stdin.flush()

    try:
        for number in range(count):
            try:
                workers.append(_start())
            except OSError:
                return
            ask(number)
        for number in range(len(batches)):
            stdout = workers[number % count].stdout
            assert stdout is not None
            answer = stdout.readline()
            if not answer.endswith(b"\n"):
                return
            # Asked before what it has seen is used: no process waits for this one.
            if number + count < len(batches):
                ask(number + count)
            yield msgspec.json.decode(answer, type=list[Seen])
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def _start() -> subprocess.Popen[bytes]:
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "equivbench.records.look_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # A Ctrl-C of the terminal is for this process, which ends them.
        start_new_session=True,
        env=worker_environment(1, path),
    )


def _foreign() -> frozenset[str]:
    """Names of what this process has registered beside what equivbench provides, and of plug-ins
    that it has loaded: what they declare is no part of the version of the code."""
    registries = (PAIRS, DATASETS, MODELS, TASKS)
    return frozenset(
        name
        for registry in registries
        for name, entry in registry.without_plugins().items()
        if entry.origin != BUILT_IN
    )


def _place_of(file: Path) -> tuple[str, str]:
    """The results folder that a record at ``file`` belongs to, and its place in it; both empty for
    a file that is not so deep."""
    folder, *rest = os.path.abspath(file).rsplit(os.sep, _DEPTH)
    return (folder, "/".join(rest)) if len(rest) == _DEPTH else ("", "")
