"""More bad submissions: bytes that are no JSON, things that are no files, copies, spoiled kernel
samples and analyses."""

from __future__ import annotations

import copy
import gzip
import json
import lzma
import os
import socket
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from spoil import MACHINE, Plain, Spoiled, place_of, set_at, text_of

from equivbench.records.files import FILE_LIMIT


def from_bytes(good: Sequence[Plain]) -> Iterator[Spoiled]:
    """Files whose bytes are wrong, under the name of a record."""
    for number, (name, (reason, spoil)) in enumerate(BYTES.items()):
        data, folder = text_of(good[number % len(good)]), f"{MACHINE}/bytes{number}"
        yield Spoiled(
            name,
            reason,
            lambda out, spoil=spoil, data=data, folder=folder: _put(
                out / folder / "x.json", spoil(data)
            ),
        )
    whole = text_of(good[0])
    for number in range(12):
        # Cuts everywhere: in keys, numbers and strings.
        cut = whole[: 1 + len(whole) * number // 12]
        target = f"{MACHINE}/cut{number}/x.json"
        yield Spoiled(
            f"cut at {number}/12",
            "is not a valid record",
            lambda out, cut=cut, target=target: _put(out / target, cut),
        )


def _put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _zip(data: bytes) -> bytes:
    import io

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.json", data)
    return buffer.getvalue()


_DEEP = b"[" * 20_000 + b"]" * 20_000 + b","
BYTES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "empty": ("is empty", lambda data: b""),
    "blank": ("is empty", lambda data: b" \n\t\n"),
    "null": ("is not a valid record", lambda data: b"null"),
    "a list": ("is not a valid record", lambda data: b"[" + data + b"]"),
    "two records": ("is not a valid record", lambda data: data + data),
    "text": ("is not a valid record", lambda data: b"see attached"),
    "html": ("is not a valid record", lambda data: b"<!doctype html><script>alert(1)</script>"),
    "pickle": ("zero bytes", lambda data: b"\x80\x04cposix\nsystem\n\x00."),
    "byte order mark": ("byte order mark", lambda data: b"\xef\xbb\xbf" + data),
    "UTF-16": ("UTF-16", lambda data: data.decode().encode("utf-16")),
    "UTF-16 without mark": ("zero bytes", lambda data: data.decode().encode("utf-16-le")),
    "UTF-32": ("is not a valid record", lambda data: data.decode().encode("utf-32")),
    "Latin-1": (
        "not UTF-8",
        lambda data: data.replace(b"equivbench run", "équivbench rün".encode("latin-1")),
    ),
    "gzip": ("gzip", gzip.compress),
    "gzip bomb": ("gzip", lambda data: gzip.compress(bytes(10**7))),
    "zip": ("zip", _zip),
    "xz": ("xz", lzma.compress),
    "random": ("is not a valid record", lambda data: bytes(range(128, 256)) * 100),
    "zero bytes": ("zero bytes", lambda data: bytes(4096)),
    "too large": ("bytes, more than the", lambda data: b" " * (FILE_LIMIT + 1)),
    "NaN token": (
        "is not a valid record",
        lambda data: data.replace(b'"restarts": 0', b'"restarts": NaN'),
    ),
    "Infinity token": (
        "is not a valid record",
        lambda data: data.replace(b'"lost_seconds": 0.0', b'"lost_seconds": Infinity'),
    ),
    "1e999": (
        "is not a valid record",
        lambda data: data.replace(b'"lost_seconds": 0.0', b'"lost_seconds": 1e999'),
    ),
    "5,000 digits": (
        "is not a valid record",
        lambda data: data.replace(b'"restarts": 0', b'"restarts": ' + b"9" * 5000),
    ),
    "single quotes": ("is not a valid record", lambda data: data.replace(b'"', b"'")),
    "trailing comma": ("is not a valid record", lambda data: data[:-1] + b",}"),
    "comment": ("is not a valid record", lambda data: b"// mine\n" + data),
    "deep lists": ("lists and objects, more than", lambda data: b"[" * 10**6),
    "deep objects": (
        "is not a valid record",
        lambda data: (
            b'{"schema_version": 2, "x": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}"
        ),
    ),
    "deep config": (
        "is not a valid record",
        lambda data: data.replace(
            b'"config": {', b'"config": {"d": ' + b"[" * 20_000 + b"]" * 20_000 + b","
        ),
    ),
    "raw control character": (
        "is not a valid record",
        lambda data: data.replace(b"equivbench run", b"equivbench\x1b[2Jrun"),
    ),
    "lone surrogate": (
        "is not a valid record",
        lambda data: data.replace(b"equivbench run", rb"equivbench \ud800 run"),
    ),
    "key twice": (
        "'steps' is given twice",
        lambda data: data.replace(b'"steps": ', b'"steps": 1, "steps": ', 1),
    ),
    "part twice": (
        "'final' is given twice",
        lambda data: data.replace(b'"final": ', b'"final": null, "final": ', 1),
    ),
    "key twice, escaped": (
        "'seed' is given twice",
        lambda data: data.replace(b'"seed": ', rb'"se\u0065d": 5, "seed": ', 1),
    ),
    "key twice, deep": (
        "'share' is given twice",
        lambda data: data.replace(b'"share": ', b'"share": 0.0, "share": ', 1),
    ),
    "invisible key": (
        "unknown field",
        lambda data: data.replace(b'"seed": ', '"seed\u200b": 5, "seed": '.encode(), 1),
    ),
}


def from_things(good: Sequence[Plain]) -> Iterator[Spoiled]:
    """Things called ``x.json`` that are no plain file below the folder, and records where they do
    not belong."""
    for number, (name, (reason, make)) in enumerate(THINGS.items()):
        place = f"{MACHINE}/things{number}/x.json"

        def write(out: Path, make: Callable[[Path], None] = make, place: str = place) -> Path:
            path = out / place
            path.parent.mkdir(parents=True, exist_ok=True)
            make(path)
            return path

        yield Spoiled(name, reason, write)
    record = good[0]
    for number, place in enumerate(
        (
            "x.json",
            f"{MACHINE}/x.json",
            "a/b/c/d/e.json",
            f"{record['task']}/{record['pair']}/x.json",
        )
    ):
        misplaced = f"misplaced{number}/{place}"
        yield Spoiled(
            f"record at {place}",
            "place does not fit",
            lambda out, place=misplaced: _put(out / place, text_of(record)),
        )
    for name, change in COPIES.items():
        yield Spoiled(f"copy: {name}", "number for number", _copier(record, change))
    yield Spoiled(
        "the same run twice, in another folder",
        "the same run as",
        lambda out: _put(place_of(record, out / "zz"), text_of(record)),
    )


def _copier(record: Plain, change: Callable[[Plain], None]) -> Callable[[Path], Path]:
    def write(out: Path) -> Path:
        forged = copy.deepcopy(record)
        change(forged)
        return _put(place_of(forged, out), text_of(forged))

    return write


def _as_seed_41(record: Plain) -> None:
    record["run_id"] = record["run_id"].replace(f"seed{record['seed']}-", "seed41-")
    record["seed"], record["command"] = (
        41,
        f"equivbench run {record['task']}/{record['pair']} --seeds 41",
    )


COPIES: dict[str, Callable[[Plain], None]] = {
    "another seed": _as_seed_41,
    "another run": lambda record: record.update(run_id=record["run_id"] + "-2"),
    "another pair": lambda record: record.update(pair="mine"),
    "another arm": lambda record: record.update(pair="mine", arm=record["arm"] + "-x"),
}


def _socket(path: Path) -> None:
    # A socket's address is short: it is made by its name within the folder.
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


THINGS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a pipe": ("not a regular file", lambda path: os.mkfifo(path)),
    "a socket": ("not a regular file", _socket),
    "a folder": ("not a regular file", lambda path: path.mkdir()),
    "a folder with a file": ("not a regular file", lambda path: (path / "y").mkdir(parents=True)),
    "a link to a secret": ("a symbolic link", lambda path: path.symlink_to("/etc/passwd")),
    "a link to a device": ("a symbolic link", lambda path: path.symlink_to("/dev/zero")),
    "a link to a pipe": (
        "a symbolic link",
        lambda path: (os.mkfifo(path.parent / "pipe"), path.symlink_to("pipe"))[1],  # type: ignore[func-returns-value]
    ),
    "a link to itself": ("a symbolic link", lambda path: path.symlink_to(path.name)),
    "a dangling link": ("a symbolic link", lambda path: path.symlink_to("nowhere")),
    "a link to a folder": ("a symbolic link", lambda path: path.symlink_to("/")),
    "a sparse terabyte": ("bytes, more than the", lambda path: _sparse(path)),
}


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def from_lines(
    name: str, line: Plain, changes: Sequence[tuple[str, Any, str]], first: int = 0
) -> Iterator[Spoiled]:
    """Files of lines called ``name``, each holding ``line`` with one value changed; they are
    numbered from ``first`` on."""
    for number, (path, value, reason) in enumerate(changes, first):

        def write(out: Path, path: str = path, value: Any = value, number: int = number) -> Path:
            changed = copy.deepcopy(line)
            machine = f"bad-{name.removesuffix('.jsonl')}-{number}"
            changed["environment"]["machine_key"] = machine
            set_at(changed, path, value)
            return _put(out / machine / name, json.dumps(changed).encode() + b"\n")

        yield Spoiled(f"{name}: {path} = {str(value)[:30]!r}", reason, write)


KERNEL_CHANGES: tuple[tuple[str, Any, str], ...] = (
    ("schema_version", 9, "schema version 9"),
    ("rounds", [], "rounds must be"),
    ("rounds", [-1.0], "rounds must be"),
    ("rounds", [1e-15], "fraction_of_floor"),
    ("operations", 1e30, "operations a second"),
    ("operations", 1e300, "measures nothing"),
    ("operations", -1.0, "operations is -1"),
    ("bytes_fused", 0.0, "bytes_fused is 0"),
    ("bytes_unfused", 1.0, "are fewer than"),
    ("bandwidth", 1e15, "bandwidth 1e+15"),
    ("bandwidth", -1.0, "bandwidth is -1"),
    ("fraction_of_floor", 3.0, "fraction_of_floor is 3"),
    ("errors", {}, "errors is empty"),
    ("errors", {"output": 0.5}, "such a kernel is not timed"),
    ("errors", {"output": -1.0}, "such a kernel is not timed"),
    ("compile_seconds", -1.0, "compile_seconds is -1"),
    ("created", "1999-01-01T00:00:00+00:00", "no time at which"),
    ("mode", "sideways", "Invalid enum value"),
    ("environment.machine_key", "elsewhere", "belongs into the folder"),
    ("command", "\x1b[31m", "unseen character"),
    ("dtype", 32, "Expected `str`"),
    ("x", 1, "unknown field"),
)
ROOFLINE_CHANGES: tuple[tuple[str, Any, str], ...] = (
    ("schema_version", 1, "no roofline"),
    ("roofline", None, "has a roofline"),
    ("allocator", None, "the setting of the allocator"),
    ("fraction_of_floor", 0.3, "no fraction_of_floor"),
    ("roofline.fraction", 0.99, "fraction is 0.99"),
    ("roofline.binding", "arithmetic", "takes longer"),
    ("roofline.bytes_read", 1.0, "bytes read and written are"),
    ("roofline.bytes_written", -1.0, "neither can be below zero"),
    ("roofline.bounds", [], "has bounds"),
    ("roofline.bounds.0.amount", 1.0, "bytes of the bounds"),
    ("roofline.bounds.0.rate", 1.0, "an instrument is at fault"),
    ("roofline.bounds.0.rate", -1.0, "above zero"),
    ("roofline.bounds.0.name", "wishes", "not 'wishes'"),
    ("roofline.bounds.1.amount", 1.0, "operations of the bounds"),
    ("roofline.bounds.1.rate", 1e20, "arithmetic of 1e+20 a second"),
)
GRADIENT_CHANGES: tuple[tuple[str, Any, str], ...] = (
    ("points.0.twirled_norm.value", -1.0, "below zero"),
    ("points.0.ratio.value", 1e6, "does not lie in its interval"),
    ("points.0.ratio", {"value": 9.0, "low": 8.0, "high": 10.0}, "make another"),
    ("points.0.equivariance_norm.low", 5e9, "does not lie in its interval"),
    ("points.0.step", 10**9, "ascending steps"),
    ("points", [], "ascending steps"),
    ("points.0.deviation", -1.0, "deviation is -1"),
    ("correlations", {"ratio": {"value": 1.5, "low": 1.0, "high": 2.0}}, "outside [-1, 1]"),
    ("samples", 0, "samples is 0"),
    ("seconds", -1.0, "seconds is -1"),
    ("weights", "best", "Invalid enum value"),
)
LANDSCAPE_CHANGES: tuple[tuple[str, Any, str], ...] = (
    ("axes", [[0.0]], "a slice has 2"),
    ("grids.total", [[1.0]], "shape of the axes"),
    ("parts.total.largest", [1.0, 2.0], "largest is not in order"),
    ("parts.total.smallest", [5e9], "is below the smallest"),
    ("parts.total.quadratic_r2", 1.5, "quadratic_r2 is 1.5"),
    ("parts.total.residual", -1.0, "residual is -1"),
    ("parts.total.trace", {"value": None}, "reasons has no entry"),
    ("parameters", 0, "parameters is 0"),
    ("along", "sideways", "Invalid enum value"),
)
