"""What a generator has made of a long list, kept in parts on disk until all of it is done, so that
it can be interrupted and go on. Imports no torch."""

from __future__ import annotations

import contextlib
import io
import itertools
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.records.files import write_atomically

PART = 250
"""Items in a file: some 20 s of work of two cores for labelled molecules."""
_NAMES = "names"
_BROKEN = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)


def resumed(
    folder: Path,
    items: Sequence[str],
    make: Callable[[Sequence[str]], Iterator[tuple[Any, ...] | None]],
) -> Iterator[tuple[Any, ...] | None]:
    """What ``make`` makes of each of ``items`` in their order (its name, which is not empty, and
    arrays; None where a step failed), taken from ``folder`` as far as it is there, and kept there
    in parts of ``PART`` items.

    The name of the folder must say all that decides what is made. A part that cannot be read is
    made again, with all after it.
    """
    done = 0
    for number in itertools.count():
        kept = _read(folder / _file(number))
        if kept is None:
            break
        done += len(kept)
        yield from kept
    part: list[tuple[Any, ...] | None] = []
    for made in make(items[done:]):
        part.append(made)
        if len(part) == PART:
            write_atomically(folder / _file(done // PART), _packed(part))
            done += PART
            part.clear()
        yield made


def _file(number: int) -> str:
    return f"{number:06}.npz"


def _packed(part: Sequence[tuple[Any, ...] | None]) -> bytes:
    names = np.array([made[0] if made is not None else "" for made in part])
    columns: dict[str, NDArray[Any]] = {
        f"{index}.{place}": array
        for index, made in enumerate(part)
        if made is not None
        for place, array in enumerate(made[1:])
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{_NAMES: names}, **columns)
    return buffer.getvalue()


def _read(path: Path) -> list[tuple[Any, ...] | None] | None:
    """What a part holds; None where it is not there, or not whole."""
    with (
        contextlib.suppress(*_BROKEN),
        np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays,
    ):
        held = set(arrays.files)
        found: list[tuple[Any, ...] | None] = []
        for index, name in enumerate(arrays[_NAMES].tolist()):
            own: list[NDArray[Any]] = []
            while (key := f"{index}.{len(own)}") in held:
                own.append(arrays[key])
            found.append((name, *own) if name else None)
        return found if len(found) == PART else None
    return None
