"""Where the file of a data set comes from: shipped in the package, or built once into the cache.
Imports no torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from equivbench.environment import cache_dir
from equivbench.errors import FailedError
from equivbench.tasks.base import TaskData
from equivbench.tasks.storage import verified_content


@dataclass(frozen=True)
class ArchiveSource:
    """A data set kept as one archive (:mod:`equivbench.tasks.storage`).

    ``folder`` is where a shipped archive lies; one that is built goes into the cache instead.
    ``read(path)`` gives the splits; ``build(path)`` writes the file and its cards there, None where
    it is shipped.
    """

    name: str
    task: str
    folder: Path
    read: Callable[[Path], TaskData]
    build: Callable[[Path], object] | None = None

    def path(self) -> Path:
        """Where the file is, or would be once prepared."""
        folder = self.folder if self.build is None else cache_dir() / "datasets" / self.task
        return folder / f"{self.name}.npz"

    def prepare(self) -> Path:
        """The file, built first if it is missing; raises ``FailedError`` with what to do. Reading
        it checks it."""
        path = self.path()
        # The card is written last: without it the file was not finished.
        if self.build is not None and not path.with_suffix(".json").exists():
            self.build(path)
        return path

    def verify(self) -> str:
        """The file's SHA-256 after checking it against its card; raises ``FailedError`` on a
        mismatch."""
        digest: str = verified_content(self.path())[1]["sha256"]
        return digest

    def load(self) -> TaskData:
        """The splits; raises ``FailedError`` if the file is missing, cut short or of the wrong
        content."""
        return self.read(self.path())


def location(name: str, default: str) -> Path:
    """Where the user has published files: ``EQUIVBENCH_DATA_<NAME>``, or ``default`` under the
    cache's ``sources``."""
    given = os.environ.get(f"EQUIVBENCH_DATA_{name}")
    return Path(given).expanduser() if given else cache_dir() / "sources" / default


def must_exist(path: Path, variable: str, what: str) -> None:
    """Raise ``FailedError`` that says which variable names ``what`` unless ``path`` is a file."""
    if not path.is_file():
        raise FailedError(f"{path} is not there; set EQUIVBENCH_DATA_{variable} to {what}")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
