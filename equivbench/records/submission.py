"""A folder of results from a stranger, looked through as a whole: what is wrong with each file, and
which records to admit."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import msgspec

from equivbench.errors import FailedError, IncomparableError, UsageError
from equivbench.records.copies import RecordDigest, Report, compare, digest_of
from equivbench.records.files import hidden, not_json, read_bounded, shown
from equivbench.records.line_files import LineFile, line_files
from equivbench.records.plausibility import incomparable, problems, remarks
from equivbench.records.schema import RunRecord
from equivbench.records.store import (
    InvalidRecordWarning,
    decode_record,
    record_files,
    record_order,
    record_path,
)

MOST_SHOWN = 20
"""Problems named of one file; a broken one can have thousands."""


def review(paths: Sequence[Path]) -> list[Report]:
    """A report on every file of results at or below ``paths``, in their order; raises
    ``FailedError`` if there is none.

    Records are ``*.json``, kernel samples and analyses the ``*.jsonl`` of :func:`line_files`; other
    ``*.jsonl`` (logs of tuning) are looked at for hostile content only. One record is in memory at
    a time, and of each some hundred bytes stay.
    """
    folders = [path for path in paths if path.is_dir()]
    reports: list[Report] = []
    digests: list[RecordDigest] = []
    for file in record_files(paths, endings=(".json", ".jsonl")):
        if file.suffix != ".json":
            reports.append(_lines(file))
            continue
        report, record = _record(file, folders)
        reports.append(report)
        if record is not None:
            # What is named first comes first: `validate results theirs` finds theirs to be copies,
            # whatever date they bear.
            named = (index for index, path in enumerate(paths) if file.is_relative_to(path))
            digests.append(digest_of(record, report, next(named, 0)))
    compare(digests)
    return reports


def admitted(path: str | Path, *, invalid: Literal["raise", "warn"] = "raise") -> list[RunRecord]:
    """The records at or below ``path`` that :func:`review` finds nothing wrong with, sorted as
    ``load_results`` sorts them.

    A file that is refused raises ``FailedError`` naming it and the first reason, or with
    ``invalid="warn"`` is left out with a warning. A record under other rules is no wrong one: the
    board keeps it apart.
    """
    folders = [each for each in [Path(path)] if each.is_dir()]
    found = [_record(file, folders) for file in record_files(path)]
    compare([digest_of(record, report) for report, record in found if record is not None])
    records = []
    for report, record in found:
        if record is not None and report.exit_codes in ([], [IncomparableError.exit_code]):
            records.append(record)
        else:
            _refuse(report, invalid)
    return sorted(records, key=record_order)


def _refuse(report: Report, invalid: Literal["raise", "warn"]) -> None:
    if invalid == "raise":
        raise FailedError(f"{report.refusal}; `equivbench results validate` says all that is wrong")
    warnings.warn(f"left out: {report.refusal}", InvalidRecordWarning, stacklevel=3)


def _record(file: Path, folders: list[Path]) -> tuple[Report, RunRecord | None]:
    report = Report(shown(file))
    try:
        data = read_bounded(file, follow=False)
        record = decode_record(data, str(file))
    except FailedError as error:
        report.problems.append(str(error))
        return report, None
    found = [*islice(hidden(data), MOST_SHOWN)]
    # What is hidden may be endless, and is not looked at any further.
    if not found:
        inside = any(file.is_relative_to(folder) for folder in folders)
        found = list(
            dict.fromkeys([*(_misplaced(record, file) if inside else []), *problems(record)])
        )
    report.problems = _at_most(found)
    if not found:
        report.remarks = [shown(remark) for remark in remarks(record)]
        other = incomparable(record)
        report.incomparable = other is not None
        report.problems += [other] if other else []
    return report, None if found else record


def _misplaced(record: RunRecord, file: Path) -> list[str]:
    """A file in a folder of results must lie where its content says, or one could pass for another
    or be overwritten by it."""
    try:
        expected = record_path(record, "")
    except UsageError as error:
        return [str(error)]
    if file.absolute().parts[-len(expected.parts) :] == expected.parts:
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
    found: list[str] = []
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip() and len(found) <= MOST_SHOWN:
            found += [
                f"line {number}: {problem}" for problem in _line(line, number, kind, file, seen)
            ]
    report.problems = _at_most(found)
    return report


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
