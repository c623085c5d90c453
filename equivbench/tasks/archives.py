"""The file of a data set: its card and checksum, where it lies, and the published files that it is
converted from. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equivbench.environment import cache_dir
from equivbench.errors import EquivbenchWarning, FailedError
from equivbench.registry import resolve
from equivbench.specs import Factory
from equivbench.tasks.base import TaskData


def read_card(path: Path) -> dict[str, Any]:
    """The .json card beside the data file ``path``; raises ``FailedError`` if it is missing or
    broken."""
    where = path.with_suffix(".json")
    try:
        card = json.loads(where.read_bytes())
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not path.exists():
            raise not_prepared(path.stem, path) from error
        raise FailedError(f"{where} cannot be read ({error.strerror}); {remedy(path)}") from error
    except ValueError as error:
        raise FailedError(f"{where} is not valid JSON; {remedy(path)}") from error
    if not isinstance(card, dict) or not all(
        isinstance(card.get(name), str) for name in ("sha256", "version")
    ):
        raise FailedError(f"{where} is not the card of a data set; {remedy(path)}")
    if not _are_sources(card.get("sources", {})):
        raise FailedError(
            f"{where} does not say of each of its sources how many bytes it has and their SHA-256; "
            f"{remedy(path)}"
        )
    return card


def _are_sources(sources: Any) -> bool:
    return isinstance(sources, dict) and all(
        isinstance(facts, dict)
        and type(facts.get("bytes")) is int
        and isinstance(facts.get("sha256"), str)
        and not (Path(name).is_absolute() or ".." in Path(name).parts)
        for name, facts in sources.items()
    )


def verified_content(path: Path) -> tuple[bytes, dict[str, Any]]:
    """(bytes, card) of ``path``; raises ``FailedError`` if it is missing or its SHA-256 is not the
    card's."""
    card = read_card(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FailedError(f"{path} cannot be read ({error.strerror}); {remedy(path)}") from error
    if hashlib.sha256(content).hexdigest() != card["sha256"]:
        raise changed_content(path, card)
    return content, card


def changed_content(path: Path, card: Mapping[str, Any]) -> FailedError:
    """The error of a file whose SHA-256 is not that of its ``card``."""
    return FailedError(
        f"{path} ({path.stat().st_size} bytes, SHA-256 {sha256_of(path)[:12]}...) is cut short or "
        f"changed: its card says {card['sha256'][:12]}...; {remedy(path)}"
    )


def not_prepared(dataset: str, path: Path) -> FailedError:
    """The error of a data set that belongs at ``path`` and is not there yet."""
    return FailedError(f"{dataset} is not at {path} yet; run `equivbench data prepare {dataset}`")


def remedy(path: Path) -> str:
    """How to get a sound file at ``path``: the end of every sentence about a broken one."""
    return (
        f"delete it if it is there and run `equivbench data prepare {path.stem}` (a shipped set: "
        "reinstall equivbench)"
    )


@dataclass(frozen=True)
class ArchiveSource:
    """A data set kept as one archive, shipped in the task's ``data`` folder or built into the
    cache.

    ``reader`` gives the splits of the archive, called with its path and ``arguments``;
    ``build(path)`` writes the file and its cards there, None where it is shipped.
    """

    name: str
    task: str
    reader: Factory
    build: Callable[[Path], object] | None = None
    arguments: tuple[Any, ...] = ()
    origin: Callable[[str], Path] | None = None
    """Where the user's file is that the card's ``sources`` name so; None if there is none."""

    def path(self) -> Path:
        """Where the file is, or would be once prepared."""
        shipped = Path(__file__).parent / self.task / "data"
        folder = shipped if self.build is None else cache_dir() / "datasets" / self.task
        return folder / f"{self.name}.npz"

    def problem(self, dataset: str) -> FailedError | None:
        """Why the set, called ``dataset``, is not prepared: its file or its card is not there, as
        where a build ended between the two, or the file has another size than the card says. None
        where it is: whoever reads the file holds its SHA-256 against the card's."""
        path = self.path()
        if not (path.is_file() and path.with_suffix(".json").is_file()):
            return not_prepared(dataset, path)
        try:
            card = read_card(path)
        except FailedError as error:
            return error
        size = path.stat().st_size
        return None if card.get("bytes", size) == size else changed_content(path, card)

    def prepare(self) -> Path:
        """The file, built first if it or its card is missing or its sources have changed, by size
        or by a later date and another SHA-256 (:meth:`verify` hashes them whatever their dates
        say); raises ``FailedError`` with what to do. Reading it checks it."""
        path = self.path()
        card = path.with_suffix(".json")
        # The card is written last: without it the file was not finished.
        whole = path.exists() and card.exists()
        if self.build is not None and not (whole and not self.changed_sources(since=card)):
            self.build(path)
        return path

    def verify(self) -> str:
        """The file's SHA-256 after checking it against its card; raises ``FailedError`` on a
        mismatch, and where the files that it was converted from have changed since."""
        digest: str = verified_content(self.path())[1]["sha256"]
        if changed := self.changed_sources():
            raise FailedError(self._outdated(changed))
        return digest

    def load(self) -> TaskData:
        """The splits; raises ``FailedError`` if the file is missing, cut short or of the wrong
        content. Says in a warning where the files that it was converted from have changed."""
        data: TaskData = resolve(self.reader)(self.path(), *self.arguments)
        if changed := self.changed_sources(since=self.path().with_suffix(".json")):
            warnings.warn(self._outdated(changed), EquivbenchWarning, stacklevel=2)
        return data

    def changed_sources(self, since: Path | None = None) -> list[Path]:
        """The files that the archive was converted from and that are no longer what the card says;
        one that is gone has not changed.

        With ``since`` a file of the same size that is older than that file counts as the same
        without being read: a source may have many gigabytes.
        """
        if self.origin is None:
            return []
        changed = []
        for name, facts in read_card(self.path()).get("sources", {}).items():
            file = self.origin(name)
            if not file.is_file():
                continue
            stat = file.stat()
            same = stat.st_size == facts["bytes"]
            if same and (since is None or stat.st_mtime_ns >= since.stat().st_mtime_ns):
                same = sha256_of(file) == facts["sha256"]
            if not same:
                changed.append(file)
        return changed

    def _outdated(self, changed: list[Path]) -> str:
        return (
            f"{' and '.join(map(str, changed))} changed since {self.name} was converted from it; "
            f"run `equivbench data prepare {self.name}` to convert it anew"
        )


def location(name: str, default: str) -> Path:
    """Where the user has published files: ``EQUIVBENCH_DATA_<NAME>``, or ``default`` under the
    cache's ``sources``."""
    given = os.environ.get(f"EQUIVBENCH_DATA_{name}")
    return Path(given).expanduser() if given else cache_dir() / "sources" / default


def must_exist(path: Path, variable: str, what: str) -> None:
    """Raise ``FailedError`` that says which variable names ``what`` unless ``path`` is a file."""
    if not path.is_file():
        state = "is no file" if path.exists() else "is not there"
        raise FailedError(f"{path} {state}; set EQUIVBENCH_DATA_{variable} to {what}")


def cannot_be_read(path: Path, error: Exception) -> FailedError:
    """The error of a file that the system does not give, which says nothing of its content."""
    return FailedError(
        f"{path} cannot be read ({getattr(error, 'strerror', None) or error}); check the path and "
        "its permissions"
    )


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def show_progress(done: int, total: int, what: str) -> None:
    """One line on a terminal, rewritten until all is done."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done}/{total} {what}" + ("\n" if done == total else ""))
