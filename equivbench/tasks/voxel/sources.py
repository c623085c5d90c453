"""Where each voxel data set's file comes from: shipped, generated, or converted from files that the
user has."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

from equivbench.errors import FailedError
from equivbench.tasks.base import TaskData
from equivbench.tasks.sources import ArchiveSource
from equivbench.tasks.voxel.geom import build_geom_drugs
from equivbench.tasks.voxel.grid import DEV, PUBLISHED, SMALL, Grid

SHIPPED = Path(__file__).parent / "data"


def conformers_small() -> ArchiveSource:
    """The set shipped in the package, on the grid that it was chosen for."""
    return _source("conformers-small", "conformers-small", SMALL)


def conformers_16() -> ArchiveSource:
    """The smallest of the shipped molecules."""
    return _source("conformers-16", "conformers-small", DEV)


def conformers_64() -> ArchiveSource:
    """The shipped molecules on the published grid."""
    return _source("conformers-64", "conformers-small", PUBLISHED)


def conformers_10k() -> ArchiveSource:
    """10,000 molecules by the shipped set's generator and seed, for the published grid; those that
    both sets hold are equal."""
    return _source("conformers-10k", "conformers-10k", PUBLISHED, _build_10k)


def geom_drugs() -> ArchiveSource:
    """GEOM-drugs in MiDi's split."""
    return _source("geom-drugs", "geom-drugs", PUBLISHED, build_geom_drugs)


def _source(
    name: str, file: str, grid: Grid, build: Callable[[Path], object] | None = None
) -> ArchiveSource:
    def read(path: Path) -> TaskData:
        from equivbench.tasks.voxel.dataset import load

        return load(path, name, grid)

    return ArchiveSource(file, "voxel", SHIPPED, read, build)


def _build_10k(path: Path) -> None:
    if importlib.util.find_spec("rdkit") is None:
        raise FailedError(
            f"{path.stem} is generated with rdkit, which is not installed; pip install 'equivbench[generate]'"
        )
    from equivbench.tasks.voxel.generate import generate

    generate(10_000, path, grid=PUBLISHED, processes=os.cpu_count() or 1)
