"""A submission in one file: the records, their weights, the logs of the tunings that they name, and
a list of it all with checksums. Imports no torch."""

from __future__ import annotations

import hashlib
import os
import secrets
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from equivbench.errors import FailedError, UsageError
from equivbench.records.declared import declaration_of
from equivbench.records.files import read_bounded, shown
from equivbench.records.line_files import line_files
from equivbench.records.store import read_record, record_files, record_place
from equivbench.records.submission import review
from equivbench.records.weight_files import LIMIT, SUFFIX, find_weights

CHECKSUMS = "SHA256SUMS"
"""As ``sha256sum -c`` reads it."""
TUNING = "tuning"
"""Folder of the logs, each under its SHA-256."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every file in the archive: the same submission has the same bytes."""


@dataclass
class Packed:
    """What went into a submission."""

    records: int = 0
    weights: int = 0
    logs: int = 0
    notes: list[str] = field(default_factory=list)
    """What is not in it and should be, a sentence each."""


def pack(paths: Sequence[Path], out: Path, *, without_weights: bool = False) -> Packed:
    """Write the records, kernel samples and analyses at or below ``paths`` into the zip file
    ``out``, laid out like a results folder, with the weights of the records.

    Raises ``FailedError`` where a file is invalid, a result has no weights here or others than its
    record names (unless ``without_weights``), two files are one in the archive, or ``out`` cannot
    be written, and ``UsageError`` where ``out`` is a file of another kind; nothing is written then.
    """
    refused = next((report for report in review(paths) if not report.valid), None)
    if refused is not None:
        raise FailedError(f"{refused.refusal}; a submission is valid as a whole")
    if out.is_file() and not zipfile.is_zipfile(out):
        raise UsageError(f"{shown(out)} is there and is no zip file; name another with --out")
    packed = Packed()
    members = list(_members(paths, packed, without_weights))
    twice = [name for name, times in Counter(each.name for each in members).items() if times > 1]
    if twice:
        raise FailedError(
            f"two of these files are {twice[0]} in a submission; submit their folders apart"
        )
    temporary = out.parent / f".{out.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    checksums = []
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            with zipfile.ZipFile(temporary, "x") as archive:
                for name, file, stated in members:
                    content = read_bounded(file, follow=False, limit=LIMIT)
                    sha256 = hashlib.sha256(content).hexdigest()
                    if stated not in (None, sha256):
                        raise FailedError(
                            f"{shown(file)} is not the file of weights that its record names by "
                            "its SHA-256; put that one there, or submit with --without-weights"
                        )
                    checksums.append(f"{sha256}  {name}\n")
                    _add(archive, str(name), content)
                _add(archive, CHECKSUMS, "".join(checksums).encode())
            temporary.replace(out)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise FailedError(f"cannot write {out}: {error.strerror or error}") from error
    return packed


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    about = zipfile.ZipInfo(name, _EPOCH)
    # Weights are numbers that do not get smaller.
    about.compress_type = zipfile.ZIP_STORED if name.endswith(SUFFIX) else zipfile.ZIP_DEFLATED
    about.external_attr = 0o644 << 16
    archive.writestr(about, content)


class _Member(NamedTuple):
    """A file and its name in the archive."""

    name: PurePosixPath
    file: Path
    sha256: str | None = None
    """What a record says that it is."""


def _members(paths: Sequence[Path], packed: Packed, without_weights: bool) -> Iterator[_Member]:
    """All that belongs to the submission."""
    files = record_files(paths, endings=(".json", ".jsonl"))
    logs = {_sha256(file): file for file in files if _is_log(file)}
    wanted: dict[str, str] = {}
    shipped: set[str] = set()
    for file in files:
        if file.suffix == ".jsonl":
            if not _is_log(file):
                machine = PurePosixPath(file.absolute().parent.name)
                yield _Member(machine / file.name, file)
                for place in _backing(file):
                    yield _Member(machine / place, file.parent / place)
            continue
        record = read_record(file, follow=False)
        place = PurePosixPath(record_place(record))
        packed.records += 1
        yield _Member(place, file)
        if record.recipe.tuning_log_sha256 is not None:
            wanted.setdefault(record.recipe.tuning_log_sha256, f"{record.task}/{record.pair}")
            declared = declaration_of(record)
            if declared is not None and declared.tuned_here:
                shipped.add(record.recipe.tuning_log_sha256)
        if record.final is None or without_weights:
            continue
        weights = find_weights(record, file)
        if weights is None:
            raise FailedError(
                f"{shown(file)} has no weights beside it or in this cache; run it with "
                "--keep-weights, or submit with --without-weights"
            )
        packed.weights += 1
        yield _Member(place.with_suffix(SUFFIX), weights, record.weights_sha256)
    for sha256, pair in sorted(wanted.items()):
        if sha256 in logs:
            packed.logs += 1
            yield _Member(PurePosixPath(TUNING, f"{sha256}.jsonl"), logs[sha256])
        elif sha256 not in shipped:
            packed.notes.append(
                f"the log of the tuning of {pair} ({sha256[:12]}...) is not below these paths, and "
                "equivbench does not ship it; add it"
            )


def _is_log(file: Path) -> bool:
    return file.suffix == ".jsonl" and file.name not in line_files()


def _backing(file: Path) -> list[PurePosixPath]:
    """Where the files are that the lines of ``file`` come from."""
    kind = line_files()[file.name]
    if kind.backing is None:
        return []
    return sorted(set(map(kind.backing.place, kind.read(file))))


def _sha256(file: Path) -> str:
    return hashlib.sha256(read_bounded(file)).hexdigest()
