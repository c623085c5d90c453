"""A look at one file that should be a record: all that can be said of it wherever it lies and
whatever lies beside it, which depends on nothing but its bytes and this code."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from equivbench.errors import FailedError, UsageError
from equivbench.records.copies import RecordDigest, digest_of
from equivbench.records.disturbed import disturbance
from equivbench.records.evaluations import judged_under
from equivbench.records.files import hidden, read_bounded
from equivbench.records.outline import RecordOutline
from equivbench.records.plausibility import incomparable, problems, remarks
from equivbench.records.schema import RunRecord, Test
from equivbench.records.store import decode_record, record_place

MOST_SHOWN = 20
"""Problems named of one file; a broken one can have thousands."""
NOTHING = msgspec.Raw(b"null")
_SHOWN_REASONS = ("model.symmetry_verified",)
"""Entries of a record's ``reasons`` that a board shows."""
_SETTLED = 2_000_000_000
"""Nanoseconds after which a change of a file has another time than the one before it, whatever the
disk's clock is like: what was read sooner is not said to be what lies there now."""


class Look(msgspec.Struct, frozen=True, array_like=True):
    """What was found in the bytes of one file."""

    problems: list[str]
    """Why it is refused, wherever it lies."""
    is_record: bool = False
    """Whether it could be read as a record that hides nothing; else nothing of the following is
    known."""
    remarks: list[str] = []
    incomparable: str | None = None
    """Why it must not be compared with records of this version's rules, if so."""
    place: str | None = None
    """Where it belongs below a results folder; None for names that cannot be those of files."""
    pair: str = ""
    """``task/pair``."""
    dataset: str = ""
    digest: RecordDigest | None = None
    """None where there are problems."""


class Stamp(NamedTuple):
    """What tells a file from what was there before under the same name. The time of the last change
    of its status is nobody's to set."""

    size: int
    modified: int
    changed: int
    inode: int


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """A look at a file, and which bytes it was at."""

    look: Look
    content: bytes = b""
    """Their digest."""
    outline: msgspec.Raw = NOTHING
    """The outline of a record without problems, as JSON, where it was asked for; else null."""
    stamp: Stamp | None = None
    """None where the file may have changed within the resolution of its times."""


def stamp_of(file: Path) -> Stamp | None:
    """The stamp of a regular file; None for anything else, for what is not there, and where the
    system keeps no time of the last change."""
    if os.name != "posix":
        return None
    try:
        found = os.lstat(file)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def see(file: Path, *, outlined: bool) -> Seen:
    """Look at ``file``, a link not followed; with ``outlined`` bring the outline of the record."""
    now, before = time.time_ns(), stamp_of(file)
    try:
        data = read_bounded(file, follow=False)
    except FailedError as error:
        return Seen(Look([str(error)]))
    look, record = look_at(data, str(file))
    settled = before is not None and before == stamp_of(file) and now - before.changed > _SETTLED
    outline = NOTHING
    if outlined and record is not None and not look.problems:
        outline = msgspec.Raw(msgspec.json.encode(outline_of(record)))
    return Seen(look, content_of(data), outline, before if settled else None)


def content_of(data: bytes) -> bytes:
    """The digest by which bytes are known again."""
    return hashlib.blake2b(data, digest_size=16).digest()


def look_at(data: bytes, name: str) -> tuple[Look, RunRecord | None]:
    """The look at ``data``, which messages call ``name``, and the record if it is one."""
    try:
        record = decode_record(data, name)
    except FailedError as error:
        return Look([str(error)]), None
    # What is hidden may be endless, and is not looked at any further.
    found = [*islice(hidden(data), MOST_SHOWN)]
    if found:
        return Look(found), None
    try:
        place = record_place(record)
    except UsageError:
        place = None  # said by a rule
    found = problems(record)
    look = Look(
        found,
        is_record=True,
        remarks=[] if found else remarks(record),
        incomparable=incomparable(record),
        place=place,
        pair=f"{record.task}/{record.pair}",
        dataset=record.dataset.name,
        digest=None if found else digest_of(record),
    )
    return look, record


def outline_of(record: RunRecord) -> RecordOutline:
    """The outline of ``record``."""
    kept = {name: getattr(record, name) for name in RunRecord.__struct_fields__}
    kept |= {name: _bare(kept[name]) for name in ("final", "final_raw", "final_ema")}
    kept |= {
        "trace": [],
        "rungs": [],
        "throughput": msgspec.structs.replace(record.throughput, blocks=[]),
        "inference": msgspec.structs.replace(record.inference, twirl={}),
        "devices": [],
        "attempts": [],
        "final_on_part": None,
        "machine_share": None,
        "out_of_distribution": {
            name: _bare(test) for name, test in record.out_of_distribution.items()
        },
        "reasons": {
            name: record.reasons[name] for name in _SHOWN_REASONS if name in record.reasons
        },
    }
    return RecordOutline(**kept, judged_under=judged_under(record), disturbance=disturbance(record))


def _bare(test: Test | None) -> Test | None:
    return None if test is None else msgspec.structs.replace(test, by={}, groups=None)
