"""A folder of results from a stranger, looked through as a whole: what is wrong with each file, and
which records to admit."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import msgspec

from equivbench.errors import FailedError
from equivbench.records.copies import Filed, Report, compare
from equivbench.records.files import hidden, not_json, read_bounded, shown
from equivbench.records.line_files import LineFile, line_files
from equivbench.records.look import MOST_SHOWN, content_of
from equivbench.records.looking import Looked, look_through
from equivbench.records.outline import RecordOutline
from equivbench.records.schema import RunRecord
from equivbench.records.store import (
    InvalidRecordWarning,
    NoRecordsError,
    decode_record,
    record_files,
    record_order,
)

_MOST_NAMED = 5
"""Lines of a file that are named one by one where the same is wrong with them."""


def review(paths: Sequence[Path]) -> list[Report]:
    """A report on every file of results at or below ``paths``, in their order; raises
    ``FailedError`` if there is none.

    Records are ``*.json``, kernel samples and analyses the ``*.jsonl`` of :func:`line_files`; other
    ``*.jsonl`` (logs of tuning) are looked at for hostile content only. One record is in memory at
    a time, and of each some thousand bytes stay. What was found in a record earlier is known again
    (:mod:`equivbench.records.looking`); that records contradict each other is found each time.
    """
    folders = [path for path in paths if path.is_dir()]
    files = record_files(paths, endings=(".json", ".jsonl"))
    records = [file for file in files if file.name.endswith(".json")]
    reports: dict[Path, Report] = {}
    filed: list[Filed] = []
    for looked in look_through(records, outlined=False):
        report = _report(looked, folders)
        reports[looked.file] = report
        if looked.look.digest is not None and not _refused(report):
            # What is named first comes first: `validate results theirs` finds theirs to be copies,
            # whatever date they bear.
            named = (index for index, path in enumerate(paths) if _is_below(looked.file, path))
            filed.append(Filed(looked.look.digest, report, next(named, 0)))
    compare(filed)
    return [reports[file] if file in reports else _lines(file) for file in files]


@dataclass(frozen=True)
class Admitted:
    """The records at or below ``path`` that nothing is wrong with."""

    path: Path
    outlines: tuple[RecordOutline, ...]
    """Sorted as ``load_results`` sorts records."""
    _files: Mapping[tuple[str, ...], tuple[Path, bytes]]

    def record(self, outline: RunRecord) -> RunRecord:
        """The record that ``outline`` is of, read now; raises ``FailedError`` where it is not what
        it was when it was looked at."""
        file, content = self._files[_name(outline)]
        data = read_bounded(file, follow=False)
        if content_of(data) != content:
            raise FailedError(
                f"{shown(file)} was changed while it was read; give the command again"
            )
        return decode_record(data, str(file))

    def content(self, outline: RunRecord) -> bytes:
        """The digest of the bytes of the record that ``outline`` is of."""
        return self._files[_name(outline)][1]


def admit(
    path: str | Path, *, invalid: Literal["raise", "warn"] = "raise", needed: bool = True
) -> Admitted:
    """The records at or below ``path`` that :func:`review` finds nothing wrong with.

    A file that is refused raises ``FailedError`` naming it and the first reason, or with
    ``invalid="warn"`` is left out with a warning. A record under other rules is no wrong one: the
    board keeps it apart. Where they are ``needed``, no records raise ``NoRecordsError``.
    """
    folders = [each for each in [Path(path)] if each.is_dir()]
    try:
        files = record_files(path)
    except NoRecordsError:
        if needed:
            raise
        files = []
    found = [(looked, _report(looked, folders)) for looked in look_through(files, outlined=True)]
    compare(
        Filed(looked.look.digest, report)
        for looked, report in found
        if looked.look.digest is not None and not _refused(report)
    )
    admitted_files: dict[tuple[str, ...], tuple[Path, bytes]] = {}
    outlines: list[RecordOutline] = []
    for looked, report in found:
        if looked.outline is None or _refused(report):
            _refuse(report, invalid)
        else:
            outlines.append(looked.outline)
            admitted_files[_name(looked.outline)] = (looked.file, looked.content)
    return Admitted(Path(path), tuple(sorted(outlines, key=record_order)), admitted_files)


def admitted(path: str | Path, *, invalid: Literal["raise", "warn"] = "raise") -> list[RunRecord]:
    """The whole records of :func:`admit`."""
    found = admit(path, invalid=invalid)
    return [found.record(outline) for outline in found.outlines]


def _name(record: RunRecord) -> tuple[str, ...]:
    """What no two records that are admitted have in common."""
    where = record.environment.machine_key
    return where, record.task, record.pair, record.arm, record.run_id


def _refused(report: Report) -> bool:
    """Whether more is wrong than other rules."""
    return len(report.problems) > report.incomparable


def _refuse(report: Report, invalid: Literal["raise", "warn"]) -> None:
    if invalid == "raise":
        raise FailedError(f"{report.refusal}; `equivbench results validate` says all that is wrong")
    warnings.warn(f"left out: {report.refusal}", InvalidRecordWarning, stacklevel=3)


def _report(looked: Looked, folders: list[Path]) -> Report:
    """What is to be said of a record where it lies, before it is compared with others."""
    file, look = looked.file, looked.look
    report = Report(shown(file))
    found = look.problems
    if look.is_record and any(_is_below(file, folder) for folder in folders):
        found = list(dict.fromkeys([*_misplaced(look.place, looked.place), *found]))
    report.problems = _at_most(found)
    if not found:
        report.remarks = [shown(remark) for remark in look.remarks]
        report.incomparable = look.incomparable is not None
        report.problems += [look.incomparable] if look.incomparable else []
    return report


def _is_below(file: Path, path: Path) -> bool:
    """``file.is_relative_to(path)``, in a tenth of its time."""
    top, name = os.fspath(path), os.fspath(file)
    if top == ".":
        return not os.path.isabs(name)
    return name == top or name.startswith(os.path.join(top, ""))


def _misplaced(expected: str | None, place: str) -> list[str]:
    """A file in a folder of results must lie where its content says, or one could pass for another
    or be overwritten by it."""
    # Names that cannot be those of files are a problem of the record itself.
    if expected in (None, place):
        return []
    return [f"the file's place does not fit its content, which belongs to {expected}"]


def _lines(file: Path) -> Report:
    report = Report(shown(file))
    kind = line_files().get(file.name)
    try:
        data = read_bounded(file, follow=False)
    except FailedError as error:
        report.problems.append(str(error))
        return report
    reason = not_json(data)
    if reason is not None or not data.strip():
        report.problems.append(f"it is not a file of results: {reason or 'it is empty'}")
        return report
    seen: dict[bytes, int] = {}
    found: dict[str, list[int]] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip() and len(found) <= MOST_SHOWN:
            for problem in _line(line, number, kind, file, seen):
                found.setdefault(problem, []).append(number)
    report.problems = _at_most([f"{_named(where)}: {what}" for what, where in found.items()])
    return report


def _named(lines: Sequence[int]) -> str:
    """``line 3``, ``lines 1 to 24``, ``lines 1, 4 and 5`` or ``12 lines, the first 3``."""
    first, last = lines[0], lines[-1]
    if len(lines) == 1:
        return f"line {first}"
    if last - first == len(lines) - 1 > 1:
        return f"lines {first} to {last}"
    if len(lines) > _MOST_NAMED:
        return f"{len(lines)} lines, the first {first}"
    return f"lines {', '.join(map(str, lines[:-1]))} and {last}"


def _line(
    line: bytes,
    number: int,
    kind: LineFile[Any] | None,
    file: Path,
    seen: dict[bytes, int],
) -> list[str]:
    try:
        value: Any = msgspec.json.decode(line, type=Any if kind is None else kind.kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        return [str(error)]
    found = [*islice(hidden(line), MOST_SHOWN)]
    if found or kind is None:
        return found
    found = kind.problems_of(value)
    if not found:
        found += kind.unfounded(value, file.parent)
    # A later measurement of the same thing is a repetition; numbers that are the same are a copy.
    measured = msgspec.structs.replace(value, created="", command="")
    first = seen.setdefault(hashlib.sha256(msgspec.json.encode(measured)).digest(), number)
    if first != number:
        found.append(f"it is a copy of line {first}")
    machine = value.environment.machine_key
    if file.absolute().parent.name != machine:
        found.append(f"it belongs into the folder {machine!r} of its machine")
    return found


def _at_most(found: list[str]) -> list[str]:
    texts = [shown(text) for text in found[:MOST_SHOWN]]
    return (
        texts
        if len(found) <= MOST_SHOWN
        else [*texts, f"and more ({len(found) - MOST_SHOWN} at least)"]
    )
