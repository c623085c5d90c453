"""Run records on disk: where each one lies, how it is written and how a folder of them is read."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from equivbench.errors import EquivbenchWarning, FailedError, UsageError
from equivbench.records.files import write_atomically
from equivbench.records.paths import leaves
from equivbench.records.schema import SCHEMA_VERSION, RunRecord

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,127}")


class InvalidRecordWarning(EquivbenchWarning):
    """A file that is not a valid record was left out."""


class _Versioned(msgspec.Struct):
    schema_version: int


def record_path(record: RunRecord, out: str | Path) -> Path:
    """``out/<machine-key>/<task>/<pair>/<arm>/<run-id>.json``; raises ``UsageError`` for a name that is no plain name."""
    named = {
        "machine key": record.environment.machine_key,
        "task": record.task,
        "pair": record.pair,
        "arm": record.arm,
        "run id": record.run_id,
    }
    for kind, name in named.items():
        if not _SAFE_NAME.fullmatch(name):
            raise UsageError(f"{kind} {name!r} cannot be part of a file name; use letters, digits and . _ + = - only")
    *folders, run_id = named.values()
    return Path(out).joinpath(*folders, f"{run_id}.json")


def write_record(record: RunRecord, out: str | Path) -> Path:
    """Write ``record`` atomically below the folder ``out`` and return its path.

    Raises ``FailedError`` if it holds a number that is not finite (JSON has none) or if the disk refuses.
    """
    path = record_path(record, out)
    plain = msgspec.to_builtins(record)
    for where, value in leaves(plain):
        if isinstance(value, float) and not math.isfinite(value):
            raise FailedError(f"record {record.run_id}: {where} is {value}; a value that was not measured is null with a reason")
    text = _format(plain) + "\n"
    decode_record(text.encode(), str(path))
    write_atomically(path, text.encode())
    return path


def decode_record(data: bytes, name: str) -> RunRecord:
    """The record in ``data``; raises ``FailedError`` that says what is wrong with ``name``."""
    if not data.strip():
        raise FailedError(f"{name} is empty: it holds no record; delete it or run again")
    try:
        version = msgspec.json.decode(data, type=_Versioned).schema_version
        if version != SCHEMA_VERSION:
            raise FailedError(f"{name} has schema version {version}, this equivbench reads version {SCHEMA_VERSION}")
        return msgspec.json.decode(data, type=RunRecord)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FailedError(f"{name} is not a valid record: {error}; delete it or run again") from error


def read_record(path: str | Path) -> RunRecord:
    """The record in one file; raises ``FailedError`` naming the file if there is none or it is not valid."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise FailedError(f"cannot read {path}: {error.strerror or error}") from error
    return decode_record(data, str(path))


def record_files(path: str | Path | Iterable[str | Path]) -> list[Path]:
    """The files ``*.json`` at or below ``path`` (hidden ones left out), sorted; raises ``FailedError`` if there are none."""
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(each) for each in path]
    files: set[Path] = set()
    for each in paths:
        if each.is_dir():
            below = (file for file in each.rglob("*.json") if file.is_file())
            found = [file for file in below if not any(part.startswith(".") for part in file.relative_to(each).parts)]
            if not found:
                raise FailedError(f"{each} holds no records; `equivbench run` writes some")
            files.update(found)
        elif each.exists():
            files.add(each)
        else:
            raise FailedError(f"{each} does not exist; name a results folder or record files")
    return sorted(files)


def load_results(path: str | Path | Iterable[str | Path], *, invalid: Literal["raise", "warn"] = "raise") -> list[RunRecord]:
    """The records at or below ``path`` (a folder, a file, or several), in an order that does not depend on the disk.

    An invalid, cut or empty file raises ``FailedError`` naming it, or with ``invalid="warn"`` is left out with a warning.
    """
    records = []
    for file in record_files(path):
        try:
            records.append(read_record(file))
        except FailedError as error:
            if invalid == "raise":
                raise
            warnings.warn(f"left out: {error}", InvalidRecordWarning, stacklevel=2)
    return sorted(records, key=_order)


def _order(record: RunRecord) -> tuple[str, str, str, str, str, int, str, str]:
    where = (record.environment.machine_key, record.task, record.pair, record.preset, record.arm)
    return (*where, record.seed, record.created, record.run_id)


def _format(value: Any, indent: int = 0) -> str:
    """JSON, one key a line, lists of plain values on one line; the same record always gives the same bytes."""
    pad = " " * (indent + 1)
    if isinstance(value, dict) and value:
        items = [f"{pad}{json.dumps(key, ensure_ascii=False)}: {_format(item, indent + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + "\n" + " " * indent + "}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return "[\n" + ",\n".join(pad + _format(item, indent + 1) for item in value) + "\n" + " " * indent + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
