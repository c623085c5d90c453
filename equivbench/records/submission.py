"""A folder of results from a stranger, looked through as a whole: what is wrong with each file, and
which records to admit."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import msgspec

from equivbench.errors import FailedError, IncomparableError, UsageError
from equivbench.records.curves import curve
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


@dataclass
class Report:
    """What was found in one file: its problems (it is refused) and remarks (it deserves a look)."""

    path: str
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    incomparable: bool = False
    """Whether another version of the rules is among the problems."""

    @property
    def valid(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def exit_codes(self) -> list[int]:
        """The exit codes that the problems ask for."""
        refused = len(self.problems) > self.incomparable
        return [FailedError.exit_code] * refused + [IncomparableError.exit_code] * self.incomparable


def review(paths: Sequence[Path]) -> list[Report]:
    """A report on every file of results at or below ``paths``, in their order; raises
    ``FailedError`` if there is none.

    Records are ``*.json``, kernel samples and analyses the ``*.jsonl`` of :func:`line_files`; other
    ``*.jsonl`` (logs of tuning) are looked at for hostile content only.
    """
    folders = [path for path in paths if path.is_dir()]
    files = record_files(paths, endings=(".json", ".jsonl"))
    found = [(file, *_record(file, folders)) for file in files if file.suffix == ".json"]
    # What is named first comes first: `validate results theirs` finds theirs to be copies, whatever
    # date they bear.
    order = {
        file: next((index for index, path in enumerate(paths) if file.is_relative_to(path)), 0)
        for file in files
    }
    _mark_copies(
        [(order[file], report, record) for file, report, record in found if record is not None]
    )
    reports = {file: report for file, report, _ in found}
    for file in files:
        if file.suffix != ".json":
            reports[file] = _lines(file)
    return [reports[file] for file in files]


def admitted(path: str | Path, *, invalid: Literal["raise", "warn"] = "raise") -> list[RunRecord]:
    """The records at or below ``path`` that :func:`review` finds nothing wrong with, sorted as
    ``load_results`` sorts them.

    A file that is refused raises ``FailedError`` naming it and the first reason, or with
    ``invalid="warn"`` is left out with a warning. A record under other rules is no wrong one: the
    board keeps it apart.
    """
    folders = [each for each in [Path(path)] if each.is_dir()]
    found = [_record(file, folders) for file in record_files(path)]
    _mark_copies([(0, report, record) for report, record in found if record is not None])
    records = []
    for report, record in found:
        if record is not None and report.exit_codes in ([], [IncomparableError.exit_code]):
            records.append(record)
        else:
            _refuse(report, invalid)
    return sorted(records, key=record_order)


def _refuse(report: Report, invalid: Literal["raise", "warn"]) -> None:
    reason = report.problems[0]
    sentence = reason if report.path in reason else f"{report.path}: {reason}"
    if invalid == "raise":
        raise FailedError(f"{sentence}; `equivbench results validate` says all that is wrong")
    warnings.warn(f"left out: {sentence}", InvalidRecordWarning, stacklevel=3)


def _record(file: Path, folders: list[Path]) -> tuple[Report, RunRecord | None]:
    report = Report(shown(file))
    try:
        data = read_bounded(file, follow=False)
        record = decode_record(data, str(file))
    except FailedError as error:
        report.problems.append(str(error))
        return report, None
    found = [*islice(hidden(data), MOST_SHOWN)] or problems(record)
    if not found and any(file.is_relative_to(folder) for folder in folders):
        found += _misplaced(record, file)
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


def _mark_copies(found: list[tuple[int, Report, RunRecord]]) -> None:
    """Refuse what repeats an earlier record (rank, report, record): one run twice, or its curve as
    another seed's or arm's.

    Of a lower rank is earlier, then what was created first, then what lies first in the folder.
    """
    runs: dict[tuple[object, ...], Report] = {}
    curves: dict[tuple[object, ...], tuple[Report, RunRecord]] = {}
    ranked = sorted(
        found, key=lambda each: (each[0], each[2].created, Path(each[1].path).with_suffix("").parts)
    )
    for _, report, record in ranked:
        where = record.environment.machine_key
        first = runs.setdefault(
            (where, record.task, record.pair, record.arm, record.run_id), report
        )
        if first is not report:
            report.problems.append(f"it is the same run as {first.path}")
            continue
        # A seed decides the initial weights and the order of the samples: with two of them no two
        # losses agree.
        points = [*curve(record), *curve(record, "raw")]
        losses = tuple(point.test.total for point in points)
        if len(losses) < 2 or None in losses:
            continue
        other, its = curves.setdefault(
            (record.task, record.dataset.sha256, losses), (report, record)
        )
        if other is report:
            continue
        same_times = [point.train_seconds for point in points] == [
            point.train_seconds for point in (*curve(its), *curve(its, "raw"))
        ]
        if (record.seed, record.arm) != (its.seed, its.arm) or same_times:
            report.problems.append(
                f"its losses are those of {other.path}, number for number: "
                "one run cannot count twice"
            )


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
    seen: dict[tuple[str, ...], int] = {}
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
    seen: dict[tuple[str, ...], int],
) -> list[str]:
    try:
        value: Any = msgspec.json.decode(line, type=Any if kind is None else kind.kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        return [str(error)]
    found = [*islice(hidden(line), MOST_SHOWN)]
    if found or kind is None:
        return found
    found = kind.problems_of(value)
    first = seen.setdefault(value.identity, number)
    if first != number:
        found.append(f"it measures the same thing as line {first}")
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
