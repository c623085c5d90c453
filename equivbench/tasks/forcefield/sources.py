"""Where each force-field data set's file comes from: shipped, generated, or converted from files that the user has."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from equivbench.environment import cache_dir
from equivbench.errors import FailedError
from equivbench.tasks.base import TaskData
from equivbench.tasks.forcefield.published import build_mace_off, build_md17, build_spice
from equivbench.tasks.forcefield.storage import verified_content

SHIPPED = Path(__file__).parent / "data"


@dataclass(frozen=True)
class ArchiveSource:
    """A data set kept as one flat archive; ``build(path)`` writes it there, None where it is shipped."""

    name: str
    build: Callable[[Path], object] | None

    def path(self) -> Path:
        """Where the file is, or would be once prepared."""
        folder = SHIPPED if self.build is None else cache_dir() / "datasets" / "forcefield"
        return folder / f"{self.name}.npz"

    def prepare(self) -> Path:
        """The file, built first if it is missing; raises ``FailedError`` with what to do. Reading it checks it."""
        path = self.path()
        if self.build is not None and not path.exists():
            self.build(path)
        return path

    def verify(self) -> str:
        """The file's SHA-256 after checking it against its card; raises ``FailedError`` on a mismatch."""
        digest: str = verified_content(self.path())[1]["sha256"]
        return digest

    def load(self) -> TaskData:
        """The splits; raises ``FailedError`` if the file is missing, cut short or of the wrong content."""
        from equivbench.tasks.forcefield.dataset import load

        return load(self.path())


def gfn2_small() -> ArchiveSource:
    """The set shipped in the package."""
    return ArchiveSource("gfn2-small", None)


def gfn2_20k() -> ArchiveSource:
    """20,000 samples by the shipped set's generator and seed: its molecules are the first of these, in the same splits."""
    return ArchiveSource("gfn2-20k", _build_20k)


def spice() -> ArchiveSource:
    """SPICE as published."""
    return ArchiveSource("spice", build_spice)


def mace_off() -> ArchiveSource:
    """The MACE-OFF23 split of SPICE."""
    return ArchiveSource("mace-off", build_mace_off)


def md17(molecule: str) -> ArchiveSource:
    """A molecule of MD17, e.g. ``aspirin`` or ``salicylic-acid``."""
    return ArchiveSource(f"md17-{molecule}", partial(build_md17, trajectory=molecule.replace("-", " ")))


def rmd17(molecule: str) -> ArchiveSource:
    """A molecule of the revised MD17."""
    return ArchiveSource(f"rmd17-{molecule}", partial(build_md17, trajectory="revised " + molecule.replace("-", " ")))


def _build_20k(path: Path) -> None:
    for tool in ("rdkit", "tblite"):
        if importlib.util.find_spec(tool) is None:
            raise FailedError(
                f"{path.stem} is generated with rdkit and tblite, and {tool} is not installed; pip install 'equivbench[generate]'"
            )
    from equivbench.tasks.forcefield.generate import generate

    generate(20_000, path, processes=os.cpu_count() or 1)
