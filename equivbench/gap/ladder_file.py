"""``ladder.jsonl`` and its logs: how an entry is kept, and what makes a line right. It says what
was changed, at which commit; its target is the one that the pair declares; its numbers follow from
its log."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from equivbench.errors import FailedError
from equivbench.gap.ladder import numbers_of, side_of
from equivbench.records.disturbed import withheld
from equivbench.records.files import not_json, shown, write_atomically
from equivbench.records.ladder import (
    LADDER_NAME,
    LADDER_SCHEMA_VERSION,
    LOGS,
    LadderEntry,
    LoggedRun,
)
from equivbench.records.line_files import BackingFile, LineFile
from equivbench.records.rules import too_large
from equivbench.registry import PAIRS
from equivbench.specs import FILE_NAME

ROUNDING = 1e-9
"""Relative: the same sums in float64, of the same log."""
LONGEST_CHANGE = 300
"""Characters of the sentence on what was changed."""


def keep_entry(entry: LadderEntry, log: bytes, results: Path) -> Path:
    """Write ``log`` and append ``entry`` to the ladder of its machine below ``results``; returns
    the ladder's file. Raises ``FailedError`` where the disk refuses."""
    folder = results / entry.environment.machine_key
    write_atomically(folder / log_place(entry), log)
    return LADDER_FILE.merge([entry], folder / LADDER_NAME)


def _said(entry: LadderEntry) -> Iterator[str]:
    """It says in a sentence what was changed, at which commit."""
    if not entry.change.strip() or "\n" in entry.change or len(entry.change) > LONGEST_CHANGE:
        yield f"change is not one sentence of at most {LONGEST_CHANGE} characters"
    if entry.git.commit is None or entry.git.dirty is not False:
        yield "git names no commit without changes, which nobody could run again"
    if entry.against_side == entry.side:
        yield "it is compared with itself"
    if not FILE_NAME.fullmatch(entry.log):
        yield f"log {entry.log!r} is no plain file name"


def _target(entry: LadderEntry) -> Iterator[str]:
    """The target loss is the one that the pair declares."""
    if entry.target <= 0:
        yield f"target is {entry.target:g}"
    pair = PAIRS.known(f"{entry.task}/{entry.pair}")
    declared = None if pair is None else pair.target(entry.arm, entry.preset)
    if declared is not None and declared.loss != entry.target:
        yield f"target is {entry.target:g}, the pair declares {declared.loss:g}"


def _nulls(entry: LadderEntry) -> Iterator[str]:
    """A value that was not measured is null with a reason."""
    names = ("seconds", "steps", "samples", "against", "p")
    missing = [each for each in names if getattr(entry, each) is None and each not in entry.reasons]
    yield from (f"{name} is null and reasons has no entry for it" for name in missing)


def log_place(entry: LadderEntry) -> PurePosixPath:
    """Where the log of ``entry`` lies, from the folder of its machine."""
    return PurePosixPath(LOGS, entry.log)


def departures(entry: LadderEntry, log: bytes) -> Iterator[str]:
    """Its log is unchanged, is of the same ladder and of runs that had their machine, and its
    numbers follow from it."""
    if hashlib.sha256(log).hexdigest() != entry.log_sha256:
        yield f"its log {entry.log} has another SHA-256"
        return
    try:
        runs = read_log(log, entry.log)
        found = numbers_of(runs, entry.side, entry.against_side, entry.target)
    except FailedError as error:
        yield str(error)
        return
    for run in runs:
        place = (run.task, run.pair, run.arm, run.preset, run.environment.machine_key)
        if place != entry.ladder[:5]:
            yield f"its log has a run of {'/'.join(place)}, which is another ladder's"
        if side_of(run) not in (entry.side, entry.against_side) or run.git.dirty is not False:
            yield f"its log has a run of {side_of(run).text}, or of a commit with changes"
        why = withheld(run.machine_share, run.clock, run.environment)
        if why is not None:
            yield f"seed {run.seed} of its log: {why}"
    for name, value in found.fields.items():
        if not _alike(msgspec.to_builtins(getattr(entry, name)), msgspec.to_builtins(value)):
            yield f"{name} does not follow from the log"


def read_log(data: bytes, name: str) -> list[LoggedRun]:
    """The runs in ``data``; raises ``FailedError`` that says what is wrong with ``name``."""
    reason = not_json(data)
    if reason is not None:
        raise FailedError(f"{name} is no log of a ladder: {reason}")
    try:
        lines = (line for line in data.splitlines() if line.strip())
        runs = [msgspec.json.decode(line, type=LoggedRun) for line in lines]
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise FailedError(f"{name} is no log of a ladder: {shown(error)}") from error
    beyond = too_large(msgspec.to_builtins(runs))
    if beyond is not None:
        raise FailedError(f"{name} is no log of a ladder: {beyond}")
    return runs


def _alike(first: Any, second: Any) -> bool:
    """Whether two plain values are the same to rounding."""
    if isinstance(first, list) and isinstance(second, list):
        same = len(first) == len(second)
        return same and all(map(_alike, first, second))
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(
            _alike(first[key], second[key]) for key in first
        )
    if isinstance(first, int | float) and isinstance(second, int | float):
        return math.isclose(first, second, rel_tol=ROUNDING, abs_tol=1e-12)
    return bool(first == second)


LADDER_FILE = LineFile(
    LADDER_NAME,
    LadderEntry,
    "ladder entry",
    LADDER_SCHEMA_VERSION,
    (_said, _target, _nulls),
    backing=BackingFile(log_place, departures),
)
