"""A streaming reader of extended XYZ files of molecules: constant memory, where ASE would build an
object a frame."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equivbench.errors import FailedError
from equivbench.tasks.forcefield.elements import NUMBERS

_PAIR = re.compile(r"""([^\s=]+)=(?:"([^"]*)"|'([^']*)'|(\S+))""")


@dataclass(frozen=True)
class Frame:
    """One structure: z [atoms]; pos (A) and forces (eV/A) [atoms, 3]; energy (eV); the header's
    other values as text."""

    z: NDArray[np.uint8]
    pos: NDArray[np.float64]
    forces: NDArray[np.float64]
    energy: float
    info: dict[str, str]


def frames(path: Path, energy: str = "energy", forces: str = "forces") -> Iterator[Frame]:
    """The frames of ``path``, read one at a time; ``energy`` and ``forces`` are the names the file
    gives to the labels.

    Raises ``FailedError`` with the line number for a file that is missing, cut short or not of this
    format.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            number = 0
            while count := lines.readline():
                if count.strip():
                    header = lines.readline()
                    body = [lines.readline() for _ in range(int(count))]
                    if not header or not all(body):
                        raise EOFError
                    yield _frame(header, body, energy, forces)
                    number += len(body) + 1
                number += 1
    except OSError as error:
        raise FailedError(
            f"{path} cannot be read ({error.strerror}); check the path and its permissions"
        ) from error
    except EOFError as error:
        raise FailedError(
            f"{path} ends inside the frame that starts at line {number + 1}; fetch the file again"
        ) from error
    except (ValueError, KeyError, IndexError) as error:
        raise FailedError(
            f"the frame at line {number + 1} of {path} is not extended XYZ with {energy} and {forces} "
            f"({type(error).__name__}: {error}); check the file"
        ) from error


def _frame(header: str, body: list[str], energy: str, forces: str) -> Frame:
    info = {key: quoted or single or bare for key, quoted, single, bare in _PAIR.findall(header)}
    columns = _columns(info.pop("Properties"))
    rows = [line.split() for line in body]
    table = {name: [row[columns[name]] for row in rows] for name in ("species", "pos", forces)}
    return Frame(
        z=np.array([NUMBERS[symbol] for [symbol] in table["species"]], dtype=np.uint8),
        pos=np.array(table["pos"], dtype=np.float64).reshape(-1, 3),
        forces=np.array(table[forces], dtype=np.float64).reshape(-1, 3),
        energy=float(info.pop(energy)),
        info=info,
    )


def _columns(properties: str) -> dict[str, slice]:
    """Columns of each property of ``species:S:1:pos:R:3:...``."""
    words = properties.split(":")
    found: dict[str, slice] = {}
    start = 0
    for name, width in zip(words[::3], words[2::3], strict=True):
        found[name] = slice(start, start + int(width))
        start += int(width)
    return found
