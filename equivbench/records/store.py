"""Run records on disk: where each one lies, how it is written and how a folder of them is read."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from equivbench.errors import EquivbenchWarning, FailedError, UsageError
from equivbench.records.collection import RunRecords
from equivbench.records.files import (
    create_atomically,
    not_finite,
    not_json,
    number_that_is_none,
    read_bounded,
    shown,
    write_atomically,
)
from equivbench.records.schema import SCHEMA_VERSION, RunRecord
from equivbench.specs import FILE_NAME

_LINES = ".jsonl"
"""How files beside records end that have a line a measurement."""
_MOST_REPETITIONS = 1000
"""Records of one name in one folder."""


class InvalidRecordWarning(EquivbenchWarning):
    """A file that is not a valid record was left out."""


class NoRecordsError(FailedError):
    """A folder without records, or a file of lines in the place of one."""


class _Versioned(msgspec.Struct):
    schema_version: int


def record_path(record: RunRecord, out: str | Path) -> Path:
    """Where ``record`` lies below the folder ``out``; raises ``UsageError`` as
    :func:`record_place`."""
    return Path(out) / record_place(record)


def record_place(record: RunRecord) -> str:
    """``<machine-key>/<task>/<pair>/<arm>/<run-id>.json``, its place in a results folder; raises
    ``UsageError`` for a name that is no plain name."""
    named = {
        "machine key": record.environment.machine_key,
        "task": record.task,
        "pair": record.pair,
        "arm": record.arm,
        "run id": record.run_id,
    }
    for kind, name in named.items():
        if not FILE_NAME.fullmatch(name):
            raise UsageError(
                f"{kind} {name!r} cannot be part of a file name; "
                "use letters, digits and . _ + = - only"
            )
    return f"{'/'.join(named.values())}.json"


def write_record(record: RunRecord, out: str | Path) -> Path:
    """Write ``record`` atomically below the folder ``out`` and return its path.

    A record never replaces that of another run: where the name is taken, ``record.run_id`` gets a
    number at its end. A run has one record: that of its end, once it came to it, else the latest.
    Raises ``FailedError`` if the record holds a number that is not finite (JSON has none) or if the
    disk refuses.
    """
    taken = record.run_id
    for number in range(1, _MOST_REPETITIONS):
        if number > 1:
            record.run_id = f"{taken}-{number}"
        path = record_path(record, out)
        data = _encoded(record, path)
        if create_atomically(path, data):
            return path
        earlier = _of_same_run(path, record)
        if earlier is not None:
            if earlier.status in ("interrupted", "failed"):
                write_atomically(path, data)
            return path
    raise FailedError(
        f"{path.parent} holds {_MOST_REPETITIONS} records called {taken}; name another results "
        "folder"
    )


def _encoded(record: RunRecord, path: Path) -> bytes:
    plain = msgspec.to_builtins(record)
    for where, value in not_finite(plain):
        raise FailedError(
            f"record {record.run_id}: {where} is {value}; "
            "a value that was not measured is null with a reason"
        )
    data = (_format(plain) + "\n").encode()
    decode_record(data, str(path))
    return data


def _of_same_run(path: Path, record: RunRecord) -> RunRecord | None:
    """What is at ``path``, if it is a record of the run that ``record`` is of, or its equal."""
    try:
        found = read_record(path, follow=False)
    except FailedError:
        return None  # whatever it is, it is not ours to replace
    begins = (record.contest, record.created)
    same = record.contest is not None and (found.contest, found.created) == begins
    return found if same or found == record else None


def decode_record(data: bytes, name: str) -> RunRecord:
    """The record in ``data``; raises ``FailedError`` that says what is wrong with ``name``."""
    name = shown(name)
    if not data.strip():
        raise FailedError(f"{name} is empty: it holds no record; delete it or run again")
    reason = not_json(data)
    if reason is not None:
        raise FailedError(f"{name} is not a valid record: {reason}")
    try:
        version = msgspec.json.decode(data, type=_Versioned).schema_version
        if version != SCHEMA_VERSION:
            raise FailedError(
                f"{name} has schema version {version}, "
                f"this equivbench reads version {SCHEMA_VERSION}"
            )
        return msgspec.json.decode(data, type=RunRecord)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        said = number_that_is_none(data) or f"{error}; delete it or run again"
        raise FailedError(f"{name} is not a valid record: {shown(said)}") from error


def read_record(path: str | Path, *, follow: bool = True) -> RunRecord:
    """The record in one file; raises ``FailedError`` naming the file if there is none or it is not
    valid.

    ``follow``: whether a symbolic link is followed; one in a folder of results is not.
    """
    return decode_record(read_bounded(Path(path), follow=follow), str(path))


def record_files(
    path: str | Path | Iterable[str | Path], *, endings: tuple[str, ...] = (".json",)
) -> list[Path]:
    """What is called ``*.json`` (or ends as ``endings`` say) at or below ``path``, hidden ones left
    out, sorted.

    Raises ``NoRecordsError`` if there are none, ``FailedError`` for what does not exist. Below a
    folder links are not followed, but named: a folder, pipe or link called ``*.json`` is an invalid
    record.
    """
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(each) for each in path]
    files: list[Path] = []
    for each in paths:
        if each.is_dir():
            found = _below(each, endings)
            if not found:
                raise NoRecordsError(
                    f"{shown(each)} holds no records; `equivbench run` writes some"
                )
            files += found
        elif each.name.endswith(_LINES) and not _LINES.endswith(endings) and each.exists():
            raise NoRecordsError(
                f"{shown(each)} holds no run records but lines of another kind; name a results "
                f"folder, such as {shown(each.parent)}, or record files"
            )
        elif each.exists():
            # A link that the user names is meant; its target is a plain file from here on.
            files.append(each.resolve() if each.is_symlink() else each)
        else:
            raise FailedError(
                f"{shown(each)} does not exist; name a results folder or record files"
            )
    # By their parts as they are sorted themselves, which would be several times as slow.
    return sorted(files if len(paths) == 1 else set(files), key=lambda each: each.parts)


def _below(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """Everything not hidden below ``folder`` whose name ends so, whatever it is; links to folders
    are not entered."""
    found = []
    for place, folders, names in os.walk(folder):
        parent = Path(place)
        found += [
            parent / name
            for name in (*folders, *names)
            if name.endswith(endings) and not name.startswith(".")
        ]
        folders[:] = [name for name in folders if not name.startswith(".")]
    return found


def load_results(
    path: str | Path | Iterable[str | Path], *, invalid: Literal["raise", "warn"] = "raise"
) -> RunRecords:
    """The records at or below ``path`` (a folder, a file, or several), in an order that does not
    depend on the disk.

    An invalid, cut or empty file raises ``FailedError`` naming it, or with ``invalid="warn"`` is
    left out with a warning. Whether a record is plausible is another question:
    :func:`equivbench.records.submission.admitted`.
    """
    records = []
    for file in record_files(path):
        try:
            records.append(read_record(file, follow=False))
        except FailedError as error:
            if invalid == "raise":
                raise
            warnings.warn(f"left out: {error}", InvalidRecordWarning, stacklevel=2)
    return RunRecords(sorted(records, key=record_order))


def record_order(record: RunRecord) -> tuple[str, str, str, str, str, int, str, str]:
    """What records are sorted by: machine, task, pair, preset, arm and seed first."""
    where = (record.environment.machine_key, record.task, record.pair, record.preset, record.arm)
    return (*where, record.seed, record.created, record.run_id)


def _format(value: Any, indent: int = 0) -> str:
    """JSON, one key a line, lists of plain values on one line; the same record always gives the
    same bytes."""
    pad = " " * (indent + 1)
    if isinstance(value, dict) and value:
        items = [
            f"{pad}{json.dumps(key, ensure_ascii=False)}: {_format(item, indent + 1)}"
            for key, item in value.items()
        ]
        return "{\n" + ",\n".join(items) + "\n" + " " * indent + "}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        items = [f"{pad}{_format(item, indent + 1)}" for item in value]
        return "[\n" + ",\n".join(items) + "\n" + " " * indent + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
