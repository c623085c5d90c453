"""Where each voxel data set's file comes from: shipped, generated, or converted from GEOM-drugs or
QM9.

GEOM-drugs comes as MiDi splits it: pickles of (SMILES, conformers), which are read without running
what a pickle may ask for. Imports no torch.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from equivbench.environment import required
from equivbench.errors import FailedError
from equivbench.tasks.archives import ArchiveSource, cannot_be_read, location, must_exist
from equivbench.tasks.storage import USERS_COPY
from equivbench.tasks.voxel import qm9
from equivbench.tasks.voxel.table import (
    DEV,
    PUBLISHED,
    SMALL,
    ConformerBuilder,
    Grid,
    facts,
    standard,
)

FILES = {"train": "train_data.pickle", "validation": "val_data.pickle", "test": "test_data.pickle"}
"""Names as published with MiDi (Vignac et al. 2023)."""
CONFORMERS = 5
"""Of each molecule, the first in its list, as MiDi and VoxMol take."""
UNDECODABLE = "that rdkit cannot decode"

Decoded = tuple[NDArray[np.integer], NDArray[np.floating]]


def _build_10k(path: Path) -> None:
    required("rdkit", f"{path.stem} is generated", "generate")
    from equivbench.tasks.voxel.generate import generate

    processes = os.cpu_count() or 1
    generate(10_000, path, grid=PUBLISHED, processes=processes, isomers_together=True)


class _PickledMolecule:
    """Stands where the pickle names rdkit's molecule class: keeps its bytes, runs nothing."""

    def __init__(self, binary: bytes) -> None:
        self.binary = binary

    def __setstate__(self, state: object) -> None:
        """The attributes that somebody put on the Python object: not part of the molecule."""


def _latin1(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes: ``_codecs.encode``, with the one encoding that it uses."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes text as {encoding!r}")
    return text.encode("latin1")


class _MoleculeUnpickler(pickle.Unpickler):
    """Admits the two names that pickles of rdkit molecules hold, each replaced by its harmless
    stand-in."""

    _admitted: ClassVar[dict[tuple[str, str], Callable[..., Any]]] = {
        ("rdkit.Chem.rdchem", "Mol"): _PickledMolecule,
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of ``module.name``; raises ``UnpicklingError`` for everything else."""
        try:
            return self._admitted[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which no molecule needs"
            ) from None


def molecules(path: Path) -> Iterator[tuple[str, list[bytes]]]:
    """(SMILES, rdkit's binary of each conformer) of the molecules in one of MiDi's files.

    Needs about the file's size in memory. Raises ``FailedError``, naming the file, if it is cut
    short, holds anything else, or names a class or function that such a file does not need; nothing
    that a pickle names is run.
    """
    try:
        with path.open("rb") as file:
            content = _MoleculeUnpickler(file).load()
    except OSError as error:
        raise cannot_be_read(path, error) from error
    except Exception as error:  # broken pickles raise anything
        raise FailedError(
            f"{path} is not GEOM-drugs as published with MiDi, or is cut short "
            f"({error or type(error).__name__}); fetch it again"
        ) from error
    if not isinstance(content, list):
        raise FailedError(
            f"{path} holds a {type(content).__name__}, not MiDi's list of (SMILES, conformers); "
            "fetch it again"
        )
    for number, item in enumerate(content):
        match item:
            case (str() as smiles, list() as conformers) if all(
                isinstance(c, _PickledMolecule) for c in conformers
            ):
                yield smiles, [conformer.binary for conformer in conformers]
            case _:
                raise FailedError(
                    f"entry {number} of {path} is not (SMILES, list of molecules); fetch it again"
                )


def decode(binary: bytes) -> Decoded | None:
    """(z [atoms], pos [atoms, 3] A) of rdkit's binary of a molecule with a conformer, or None where
    rdkit cannot read it."""
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        try:
            molecule = Chem.Mol(binary)
            pos = np.array(molecule.GetConformer().GetPositions())
        # rdkit's words for a broken binary and for one without conformer.
        except (RuntimeError, TypeError, ValueError):
            return None
        return np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()]), pos


def build_geom_drugs(out: Path) -> None:
    """``out`` from MiDi's three files, with rdkit; their folder is named by
    ``EQUIVBENCH_DATA_GEOM_DRUGS``."""
    required("rdkit", "GEOM-drugs is read", "generate")
    convert(_published(""), out, decode)


def _published(file: str) -> Path:
    return location("GEOM_DRUGS", "geom-drugs") / file


def convert(
    folder: Path, out: Path, decode: Callable[[bytes], Decoded | None], grid: Grid = PUBLISHED
) -> None:
    """Write the conformers in ``folder`` that ``grid`` holds to ``out``, in the published split.

    One ``EquivbenchWarning`` counts those left out. Raises ``FailedError`` before anything is
    written if a file is missing or broken.
    """
    for file in FILES.values():
        must_exist(
            folder / file,
            "GEOM_DRUGS",
            f"the folder with {', '.join(FILES.values())} (github.com/cvignac/MiDi)",
        )
    builder = ConformerBuilder(grid)
    for split, file in FILES.items():
        for smiles, conformers in molecules(folder / file):
            for binary in conformers[:CONFORMERS]:
                found = decode(binary)
                if found is None:
                    builder.left_out[UNDECODABLE] += 1
                else:
                    builder.add(smiles, *found, split)
    table = builder.finish(str(folder))
    builder.warn_of_left_out(str(folder), len(table.counts))
    recipe = {
        "source": "GEOM-drugs (Axelrod & Gomez-Bombarelli 2022) in the split of MiDi (Vignac et "
        "al. 2023)",
        "conformers": f"the first {CONFORMERS} of each molecule",
        "conformers left out": dict(builder.left_out),
    }
    rule = "as published with MiDi: by molecule, its train, val and test files"
    table.write(
        out,
        *facts(table, grid),
        recipe=recipe,
        licences=USERS_COPY,
        split_rule=rule,
        sources={file: folder / file for file in FILES.values()},
    )


def _source(
    name: str,
    file: str,
    grid: Grid,
    build: Callable[[Path], object] | None = None,
    origin: Callable[[str], Path] | None = None,
) -> ArchiveSource:
    reader = "equivbench.tasks.voxel.data:load"
    return ArchiveSource(file, "voxel", reader, build, (name, grid), origin)


conformers_small = partial(_source, "conformers-small", "conformers-small", SMALL)
"""The set shipped in the package, on the grid that it was chosen for."""
conformers_16 = partial(_source, "conformers-16", "conformers-small", DEV)
"""The smallest of the shipped molecules."""
conformers_64 = partial(_source, "conformers-64", "conformers-small", PUBLISHED)
"""The shipped molecules on the published grid."""
conformers_10k = partial(_source, "conformers-10k", "conformers-10k", PUBLISHED, _build_10k)
"""10,000 molecules by the shipped set's generator and seed, for the published grid; those that both
sets hold are equal. Stereoisomers are one molecule here."""
geom_drugs = partial(_source, "geom-drugs", "geom-drugs", PUBLISHED, build_geom_drugs, _published)
"""GEOM-drugs in MiDi's split."""
qm9_32 = partial(_source, "qm9-32", "qm9", standard(32, 0.25), qm9.build_qm9, qm9.published)
"""QM9 on VoxMol's grid for it."""
qm9_coarse = partial(_source, "qm9", "qm9", standard(20, 0.5), qm9.build_qm9, qm9.published)
"""QM9 on a coarser grid, for CPUs."""
