"""Where each flow data set's file comes from: shipped, cropped from the shipped one, or gathered
from the user's folder."""

from __future__ import annotations

from pathlib import Path

from equivbench.tasks.base import TaskData
from equivbench.tasks.flow.folder import NAME, FolderSource, build
from equivbench.tasks.sources import ArchiveSource

SHIPPED = Path(__file__).parent / "data"


def ca_small() -> ArchiveSource:
    """The set shipped in the package."""
    return ArchiveSource("ca-small", "flow", SHIPPED, _load)


def ca_crops_64() -> ArchiveSource:
    """Windows of at most 64 residues of the shipped set."""
    return ArchiveSource("ca-small", "flow", SHIPPED, _load_crops)


def ca_folder() -> FolderSource:
    """The user's own structures."""
    return FolderSource(NAME, "flow", SHIPPED, _load, build)


def _load(path: Path) -> TaskData:
    from equivbench.tasks.flow.dataset import load

    return load(path)


def _load_crops(path: Path) -> TaskData:
    from equivbench.tasks.flow.dataset import load_crops

    return load_crops(path, "ca-crops-64")
