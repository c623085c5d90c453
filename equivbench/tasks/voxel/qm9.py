"""Converts QM9, the B3LYP geometries of molecules of at most nine atoms beside hydrogen, from the
tables in the wheel of the package qm9pack. The wheel is read as the archive that it is: nothing of
it is installed or run. Imports no torch."""

from __future__ import annotations

import csv
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equivbench.errors import FailedError
from equivbench.tasks.archives import cannot_be_read, location, must_exist
from equivbench.tasks.molecules import identity_of
from equivbench.tasks.storage import USERS_COPY, split_rule
from equivbench.tasks.voxel.table import ELEMENTS, NUMBERS, ConformerBuilder, Grid, facts, standard

WHEEL = "qm9pack-1.0.3-py3-none-any.whl"
PARTS = tuple(f"qm9pack/data/qm9_part{number}.csv" for number in (1, 2, 3))
"""The tables in the wheel, a row a molecule."""
KEPT = standard(40, 0.25)
"""What its box does not show at every rotation is left out: one molecule in many is longer than
this, and no grid of a data set here is larger."""
_NUMBER = dict(zip(ELEMENTS, NUMBERS, strict=True))

Molecule = tuple[str, NDArray[np.int64], NDArray[np.float64]]


def published(_: str = "") -> Path:
    """Where the user has the wheel."""
    return location("QM9", WHEEL)


def molecules(path: Path) -> Iterator[Molecule]:
    """(SMILES, z [atoms], pos [atoms, 3] A) of the molecules in the wheel at ``path``, in its
    order.

    Raises ``FailedError``, naming the file, if it is no such wheel or is cut short.
    """
    where = path.name
    try:
        with zipfile.ZipFile(path) as archive:
            for part in PARTS:
                with archive.open(part, mode="r") as file:
                    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
                    rows = csv.DictReader(text, restval="")
                    for row in rows:
                        where = f"{part}, line {rows.line_num}"
                        yield _molecule(row)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, TypeError, ValueError) as error:
        said = str(error) or type(error).__name__
        raise _not_qm9(path, where, said) from error
    except csv.Error as error:
        raise _not_qm9(path, where, str(error)) from error
    except OSError as error:
        raise cannot_be_read(path, error) from error


def _molecule(row: dict[str, str]) -> Molecule:
    """A row's molecule; raises ``KeyError``, ``TypeError`` or ``ValueError`` for what is none."""
    symbols = json.loads(row["Elements"].replace("'", '"'))
    # Python's numbers, such as "0." and "6.0E-7", which JSON does not have.
    numbers = [float(each.strip(" []'")) for each in row["XYZ_Ang"].split(",")]
    z = np.array([_NUMBER[symbol] for symbol in symbols], dtype=np.int64)
    pos = np.array(numbers, dtype=np.float64).reshape(-1, 3)
    if len(z) != len(pos):
        raise ValueError(f"{len(z)} elements and {len(pos)} positions")
    return row["SMILES"], z, pos


def _not_qm9(path: Path, where: str, why: str) -> FailedError:
    return FailedError(
        f"{path} is not the wheel of qm9pack 1.0.3, or is cut short ({where}: {why}); "
        "fetch it again"
    )


def build_qm9(out: Path, grid: Grid = KEPT) -> None:
    """``out`` from the wheel that ``EQUIVBENCH_DATA_QM9`` names: the molecules that ``grid`` holds,
    split by molecule, stereoisomers together.

    One ``EquivbenchWarning`` counts those left out. Raises ``FailedError``, naming the file, where
    it is missing or broken.
    """
    source = published()
    must_exist(source, "QM9", "the wheel that `pip download --no-deps qm9pack==1.0.3` brings")
    builder = ConformerBuilder(grid)
    for smiles, z, pos in molecules(source):
        builder.add(smiles, z, pos, identity=identity_of(smiles))
    table = builder.finish(str(source))
    builder.warn_of_left_out(str(source), len(table.counts))
    table.write(
        out,
        *facts(table, grid),
        recipe={
            "source": "QM9 (Ramakrishnan, Dral, Rupp & von Lilienfeld 2014), geometries by "
            "B3LYP/6-31G(2df,p), from the package qm9pack 1.0.3 (MIT)",
            "molecules left out": dict(builder.left_out),
        },
        licences=USERS_COPY,
        split_rule=split_rule(
            "by molecule, stereoisomers together",
            "its identity_of(SMILES) (equivbench.tasks.molecules)",
        ),
        sources={WHEEL: source},
    )
