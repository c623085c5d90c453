"""Extended XYZ: reads molecules, or crystals where they are asked for, with energies and forces, a
frame at a time; writes structures. Imports no torch."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.errors import FailedError, UsageError
from equivbench.tasks.archives import cannot_be_read
from equivbench.tasks.forcefield.elements import NUMBER_OF, SYMBOLS
from equivbench.tasks.forcefield.table import MOST_NUMBER

_PAIR = re.compile(r"""(?<![^\s=])([^\s=]+)=(?:"([^"]*)"|'([^']*)'|(\S+))""")
"""It begins where a word does: elsewhere a long word would be read again from each of its letters.
"""


@dataclass(frozen=True)
class Frame:
    """One structure: z [atoms]; pos (A) and forces (eV/A) [atoms, 3]; energy (eV); the total charge
    that the header states, 0 where it states none; the header's other values as text; the cell
    [3, 3] (A, rows are the lattice vectors) of one that is periodic."""

    z: NDArray[np.uint8]
    pos: NDArray[np.float64]
    forces: NDArray[np.float64]
    energy: float
    charge: float
    info: dict[str, str]
    cell: NDArray[np.float64] | None = None


def frames(path: Path, periodic: bool = False) -> Iterator[Frame]:
    """The frames of ``path``, read one at a time.

    Raises ``FailedError`` with the line number for a file that is missing, cut short, not of this
    format, or holds a frame without atoms or, unless ``periodic``, with a periodic cell.
    """
    try:
        # Files that were saved on Windows may begin with a byte-order mark.
        with path.open(encoding="utf-8-sig") as lines:
            number = 0
            while count := lines.readline():
                if count.strip():
                    header = lines.readline()
                    atoms = int(count)
                    body = list(islice(lines, max(0, min(atoms, sys.maxsize))))
                    if not header or len(body) < atoms:
                        raise EOFError
                    yield _frame(header, body, periodic)
                    number += len(body) + 1
                number += 1
    except OSError as error:
        raise cannot_be_read(path, error) from error
    except EOFError as error:
        raise FailedError(
            f"{path} ends inside the frame that starts at line {number + 1}; fetch the file again"
        ) from error
    except _ForeignFrameError as error:
        raise FailedError(
            f"the frame at line {number + 1} of {path} {error}; take it out of the file"
        ) from error
    except (ValueError, KeyError, IndexError) as error:
        raise FailedError(
            f"the frame at line {number + 1} of {path} is not extended XYZ with energy and forces "
            f"({type(error).__name__}: {error}); check the file"
        ) from error


class _ForeignFrameError(Exception):
    """A sound frame of something that is no isolated molecule; the message goes on after it."""


def _frame(header: str, body: list[str], periodic: bool) -> Frame:
    info = {key: quoted or single or bare for key, quoted, single, bare in _PAIR.findall(header)}
    if not body:
        raise _ForeignFrameError("has no atoms")
    # A cell without pbc is a periodic one, as the format says.
    cell = None
    if re.search("[tT1]", info.get("pbc", "T T T" if "Lattice" in info else "")):
        if not periodic:
            raise _ForeignFrameError("is periodic, and these data are of molecules")
        cell = np.array(info["Lattice"].split(), dtype=np.float64).reshape(3, 3)
    columns = _columns(info.pop("Properties"))
    rows = [line.split() for line in body]
    table = {name: [row[columns[name]] for row in rows] for name in ("species", "pos", "forces")}
    species = [symbol for [symbol] in table["species"]]
    unknown = sorted(each for each in set(species) if not 0 < NUMBER_OF.get(each, 0) <= MOST_NUMBER)
    if unknown:
        raise _ForeignFrameError(
            f"has {', '.join(map(repr, unknown[:3]))} for an element, and the task knows the first "
            f"{MOST_NUMBER} by their symbols"
        )
    return Frame(
        z=np.array([NUMBER_OF[symbol] for symbol in species], dtype=np.uint8),
        pos=_vectors(table["pos"]),
        forces=_vectors(table["forces"]),
        energy=float(info.pop("energy")),
        charge=float(info.get("total_charge") or info.get("charge") or 0),
        info=info,
        cell=cell,
    )


def _vectors(rows: list[list[str]]) -> NDArray[np.float64]:
    found = np.array(rows, dtype=np.float64)
    if found.shape != (len(rows), 3):
        raise ValueError("positions and forces are not three numbers an atom")
    return found


def _columns(properties: str) -> dict[str, slice]:
    """Columns of each property of ``species:S:1:pos:R:3:...``."""
    words = properties.split(":")
    found: dict[str, slice] = {}
    start = 0
    for name, width in zip(words[::3], words[2::3], strict=True):
        found[name] = slice(start, start + int(width))
        start += int(width)
    return found


def frame_lines(
    z: NDArray[Any],
    pos: NDArray[Any],
    info: str,
    cell: NDArray[Any] | None = None,
    pbc: NDArray[Any] | None = None,
) -> list[str]:
    """The lines of a frame of ``z`` [atoms] and ``pos`` [atoms, 3] A, with ``info`` in its header;
    of a crystal with its ``cell`` [3, 3] A and ``pbc`` [3].

    Raises ``UsageError`` for an atomic number that no element has.
    """
    if unknown := sorted({int(each) for each in z if not 0 < each <= len(SYMBOLS)}):
        raise UsageError(
            f"there is no symbol for the element of atomic number {unknown[0]}, so extended XYZ "
            "cannot hold these inputs; export .npz"
        )
    header = f"Properties=species:S:1:pos:R:3 {info}"
    if cell is not None and pbc is not None:
        lattice = " ".join(f"{each:.9g}" for each in cell.flatten())
        header = f'Lattice="{lattice}" pbc="{" ".join("FT"[int(each)] for each in pbc)}" {header}'
    atoms = zip(z, pos, strict=True)
    rows = (f"{SYMBOLS[int(each) - 1]} {a:.9g} {b:.9g} {c:.9g}" for each, (a, b, c) in atoms)
    return [str(len(z)), header, *rows]
