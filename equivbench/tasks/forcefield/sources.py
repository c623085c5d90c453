"""Where each force-field data set's file comes from: shipped, generated, or converted from files
that the user has."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from equivbench.errors import FailedError
from equivbench.tasks.base import TaskData
from equivbench.tasks.forcefield.published import build_mace_off, build_md17, build_spice
from equivbench.tasks.sources import ArchiveSource

SHIPPED = Path(__file__).parent / "data"


def _load(path: Path) -> TaskData:
    from equivbench.tasks.forcefield.dataset import load

    return load(path)


def _source(name: str, build: Callable[[Path], object] | None = None) -> ArchiveSource:
    return ArchiveSource(name, "forcefield", SHIPPED, _load, build)


def gfn2_small() -> ArchiveSource:
    """The set shipped in the package."""
    return _source("gfn2-small")


def gfn2_20k() -> ArchiveSource:
    """20,000 samples by the shipped set's generator and seed: its molecules are the first of these,
    in the same splits."""
    return _source("gfn2-20k", _build_20k)


def spice() -> ArchiveSource:
    """SPICE as published."""
    return _source("spice", build_spice)


def mace_off() -> ArchiveSource:
    """The MACE-OFF23 split of SPICE."""
    return _source("mace-off", build_mace_off)


def md17(molecule: str) -> ArchiveSource:
    """A molecule of MD17, e.g. ``aspirin`` or ``salicylic-acid``."""
    return _source(f"md17-{molecule}", partial(build_md17, trajectory=molecule.replace("-", " ")))


def rmd17(molecule: str) -> ArchiveSource:
    """A molecule of the revised MD17."""
    return _source(
        f"rmd17-{molecule}", partial(build_md17, trajectory="revised " + molecule.replace("-", " "))
    )


def _build_20k(path: Path) -> None:
    for tool in ("rdkit", "tblite"):
        if importlib.util.find_spec(tool) is None:
            raise FailedError(
                f"{path.stem} is generated with rdkit and tblite, and {tool} is not installed; pip install 'equivbench[generate]'"
            )
    from equivbench.tasks.forcefield.generate import generate

    generate(20_000, path, processes=os.cpu_count() or 1)
