"""Data sets on disk: one .npz with a card for programs (.json, its SHA-256 inside) and one for
people (.md), shipped in the package or built once into the cache. Imports no torch."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.environment import cache_dir
from equivbench.errors import FailedError
from equivbench.records.files import write_atomically
from equivbench.tasks.base import TaskData
from equivbench.tasks.ragged import SPLITS, Layout, RaggedTable


def write_archive(
    out: Path,
    arrays: Mapping[str, NDArray[Any]],
    card: Mapping[str, Any],
    markdown: str,
    *,
    version: str = "1",
) -> Path:
    """Write ``arrays`` to ``out`` (.npz, compressed) and its cards beside it, each atomically, the
    .json last; returns ``out``.

    Parameters
    ----------
    arrays
        The contents by name; numbers and fixed-length bytes only.
    card
        Facts for programs, in the order in which they are to be read; name, version, sha256 and
        bytes are put before them. Must hold ``recipe``, ``units`` and ``licences`` (mappings) and
        ``split_rule`` (a sentence without its full stop), which end the card for people too.
    markdown
        What the card for people says between its title and the recipe; ``{bytes}`` and ``{sha256}``
        in it are filled in.
    version
        Of the data set, raised when its content changes.

    Raises ``FailedError`` if the folder cannot be written.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    content = buffer.getvalue()
    identity = {
        "name": out.stem,
        "version": version,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    full = {**identity, **card}
    write_atomically(out, content)
    write_atomically(out.with_suffix(".md"), _for_people(full, markdown).encode())
    write_atomically(out.with_suffix(".json"), (json.dumps(full, indent=2) + "\n").encode())
    return out


def read_card(path: Path) -> dict[str, Any]:
    """The .json card beside the data file ``path``; raises ``FailedError`` if it is missing or
    broken."""
    where = path.with_suffix(".json")
    try:
        card = json.loads(where.read_bytes())
    except OSError as error:
        raise FailedError(f"{where} cannot be read ({error.strerror}); {remedy(path)}") from error
    except ValueError as error:
        raise FailedError(f"{where} is not valid JSON; {remedy(path)}") from error
    if not (
        isinstance(card, dict)
        and isinstance(card.get("sha256"), str)
        and isinstance(card.get("version"), str)
    ):
        raise FailedError(f"{where} is not the card of a data set; {remedy(path)}")
    return card


def verified_content(path: Path) -> tuple[bytes, dict[str, Any]]:
    """(bytes, card) of ``path``; raises ``FailedError`` if it is missing or its SHA-256 is not the
    card's."""
    card = read_card(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FailedError(f"{path} cannot be read ({error.strerror}); {remedy(path)}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != card["sha256"]:
        raise FailedError(
            f"{path} ({len(content)} bytes, SHA-256 {found[:12]}...) is cut short or changed: "
            f"its card says {card['sha256'][:12]}...; {remedy(path)}"
        )
    return content, card


def read_archive(
    path: Path, names: Sequence[str], kind: str = "data"
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """(arrays called ``names``, card) of ``path``, an archive of the given ``kind`` (for messages:
    ``force-field``).

    Raises ``FailedError``, naming the file, if it or its card is missing, cut short, changed or
    lacks an array.
    """
    content, card = verified_content(path)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}, card
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise FailedError(f"{path} is not a {kind} archive ({error}); {remedy(path)}") from error


def write_table(
    table: RaggedTable,
    out: Path,
    facts: Mapping[str, Any],
    summary: str,
    *,
    units: Mapping[str, str],
    split_rule: str,
    licences: Mapping[str, str],
    recipe: Mapping[str, Any],
) -> Path:
    """Write ``table`` to ``out`` (.npz) with its cards beside it.

    Parameters
    ----------
    facts
        What the card says of the content beyond its sizes, in order.
    summary
        The same for people, below the table of sizes; ``{bytes}`` and ``{sha256}`` are filled in.
    units
        Unit or meaning of the columns that need one.
    split_rule
        How samples come into their split, a sentence without its full stop.
    licences, recipe
        Of the parts of the content, and how it was made.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    FailedError
        If the folder cannot be written.
    """
    layout, sizes, independent = table.layout, table.sizes(), table.units()
    card = {
        "sizes": sizes,
        layout.units: independent,
        layout.items: int(table.counts.sum()),
        **facts,
        "units": dict(units),
        "split_rule": split_rule,
        "licences": dict(licences),
        "recipe": dict(recipe),
    }
    rows = "\n".join(f"| {split} | {independent[split]} | {sizes[split]} |" for split in SPLITS)
    markdown = f"""
| split | {layout.units} | {layout.samples} |
|---|---|---|
{rows}

{summary}
"""
    return write_archive(out, table.columns, card, markdown)


def read_table(path: Path, layout: Layout) -> tuple[RaggedTable, dict[str, Any]]:
    """(table, card) of ``path``; raises ``FailedError`` if a file is missing, cut short, or of the
    wrong content."""
    columns, card = read_archive(path, list(layout.columns), layout.kind)
    table = RaggedTable(layout, columns)
    if not table.is_consistent:
        raise FailedError(f"the arrays of {path} disagree in length; {remedy(path)}")
    return table, card


def remedy(path: Path) -> str:
    """How to get a sound file at ``path``: the end of every sentence about a broken one."""
    return (
        f"delete it if it is there and run `equivbench data prepare {path.stem}` (a shipped set: "
        "reinstall equivbench)"
    )


def plain(value: Any) -> str:
    """A card's value as people read it: ``key value, key value`` of a mapping, items with commas of
    a list."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _for_people(card: Mapping[str, Any], markdown: str) -> str:
    recipe = "\n".join(f"- **{key}**: {plain(value)}" for key, value in card["recipe"].items())
    licences = "\n".join(f"- **{key}**: {value}" for key, value in card["licences"].items())
    body = (
        markdown.strip().replace("{bytes}", str(card["bytes"])).replace("{sha256}", card["sha256"])
    )
    return f"""# {card["name"]} (version {card["version"]})

Written together with the data; the same facts for programs are in the `.json` file.

{body}

## Recipe
{recipe}

## Units
{plain(card["units"])}.

## Split
{card["split_rule"][0].upper() + card["split_rule"][1:]}.

## Licence
{licences}
"""


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
