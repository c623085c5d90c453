"""Data sets on disk: samples of unequal length as one table of flat columns, kept as one .npz with
a card for programs (.json, its SHA-256 inside) and one for people (.md).

Atoms of molecules or residues of chains follow one another in the columns of *items*; a column of
counts says how many belong to each *sample*; samples belong to *units* (molecules, clusters of
sequences), which are independent of one another and lie in one split each. Imports no torch.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from equivbench.environment import cache_dir
from equivbench.errors import EquivbenchWarning, FailedError
from equivbench.records.files import write_atomically
from equivbench.registry import resolve
from equivbench.specs import Factory
from equivbench.tasks.base import SPLITS, TaskData

USERS_COPY = {
    "data": "as its publisher states; this is the user's own copy, and equivbench does not "
    "distribute it"
}
"""The licences on the card of a set that is converted from published files."""


def digest(text: str) -> int:
    """64 bits of the SHA-256 of ``text``: the source of every draw, order and seed of generated
    sets."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def draw(name: str) -> float:
    """A number in [0, 1) that is a pure function of the name of a unit of independence (a molecule,
    a cluster)."""
    return digest(f"split {name}") / 2**64


def split_of(name: str) -> str:
    """The split of the unit ``name``: test where ``draw(name) < 0.2``, validation where ``< 0.3``,
    else train."""
    u = draw(name)
    return "test" if u < 0.2 else "validation" if u < 0.3 else "train"


def split_rule(units: str, name: str) -> str:
    """The sentence about :func:`split_of` on a card: what is split ("by molecule"), and what a unit
    is named by."""
    return (
        f"{units}: u = draw(name), the first 8 bytes (big-endian) of SHA-256('split ' + name) over "
        f"2^64, where name is {name}; "
        "test where u < 0.2, validation where 0.2 <= u < 0.3, else train"
    )


@dataclass(frozen=True)
class RaggedColumn:
    """One column: what a row of it belongs to, and the type and trailing shape of a row."""

    per: Literal["item", "sample", "unit"]
    dtype: DTypeLike
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Layout:
    """The columns of a task's tables, among them the counts, ``n_`` and the name of the items, and
    ``split`` [samples] uint8, codes into ``SPLITS``."""

    kind: str
    """What a file holds, for messages: ``force-field``."""
    columns: Mapping[str, RaggedColumn]
    """In the order in which they are written."""
    unit: str
    """The column [samples] that numbers the unit of independence of each sample."""
    items: str
    """What people call the items: ``atoms``."""
    samples: str
    """... the samples: ``conformations``."""
    units: Mapping[str, str]
    """Unit or meaning of the columns that need one."""
    split_rule: str
    """How samples come into their split, a sentence without its full stop."""
    positions: str | None = None
    """The column [items, 3] of positions, of which the cards say how samples are oriented."""

    def read(self, path: Path) -> tuple[RaggedTable, dict[str, Any]]:
        """(table, card) of ``path``; raises ``FailedError``, naming the file, if it or its card is
        missing, cut short, changed or of the wrong content."""
        content, card = verified_content(path)
        try:
            table = self.table_of(content)
        except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
            raise FailedError(
                f"{path} is not a {self.kind} archive ({error}); {remedy(path)}"
            ) from error
        if broken := table.broken():
            raise FailedError(f"the arrays of {path} {broken}; {remedy(path)}")
        return table, card

    def table_of(self, content: bytes) -> RaggedTable:
        """The table in an archive's bytes; raises what numpy and zipfile do if it is none."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return RaggedTable(self, {name: arrays[name] for name in self.columns})


@dataclass(frozen=True)
class RaggedTable:
    """The columns by name, and how they hang together."""

    layout: Layout
    columns: Mapping[str, NDArray[Any]]

    def __getitem__(self, column: str) -> NDArray[Any]:
        return self.columns[column]

    @property
    def counts(self) -> NDArray[np.int64]:
        """[samples] items of each sample."""
        return self[f"n_{self.layout.items}"].astype(np.int64)

    @property
    def first(self) -> NDArray[np.int64]:
        """[samples] row of each sample's first item in the columns of items."""
        counts = self.counts
        return np.asarray(counts.cumsum() - counts)

    def broken(self) -> str:
        """In what way the columns do not hang together, for people; empty where they do."""
        columns, counts = self.layout.columns, self.counts
        rows = {"item": int(counts.sum()), "sample": len(counts)}
        if any(
            self[name].shape != (rows[column.per], *column.shape)
            for name, column in columns.items()
            if column.per != "unit"
        ):
            return "disagree in length"
        if len(counts) and counts.min() < 1:
            return f"hold {self.layout.samples} without {self.layout.items}"
        if (self["split"] >= len(SPLITS)).any():
            return "name splits that do not exist"
        named = [len(self[name]) for name, column in columns.items() if column.per == "unit"]
        if len(counts) and any(self[self.layout.unit].max() >= number for number in named):
            return f"name {self.layout.unit}s that do not exist"
        floats = [name for name in columns if self[name].dtype.kind == "f"]
        if not all(np.isfinite(self[name]).all() for name in floats):
            return "hold values that are not finite"
        return ""

    def sizes(self) -> dict[str, int]:
        """Samples in each split."""
        return {name: int((self["split"] == code).sum()) for code, name in enumerate(SPLITS)}

    def units(self) -> dict[str, int]:
        """Distinct units of independence in each split."""
        unit, split = self[self.layout.unit], self["split"]
        return {name: len(np.unique(unit[split == code])) for code, name in enumerate(SPLITS)}

    def principal_axis(self) -> list[float]:
        """Mean over samples of |x|, |y| and |z| of the unit vector along which a sample's positions
        spread most: 0.5 each where orientations are isotropic, near 1 for an axis to which all
        samples were turned."""
        assert self.layout.positions is not None
        pos, first = self[self.layout.positions].astype(np.float64), self.first
        counts = self.counts[:, None]
        centred = pos - np.repeat(np.add.reduceat(pos, first) / counts, counts[:, 0], axis=0)
        products = centred[:, :, None] * centred[:, None, :]
        _, axes = np.linalg.eigh(np.add.reduceat(products, first))
        return [round(float(mean), 3) for mean in np.abs(axes[:, :, -1]).mean(axis=0)]

    def write(
        self,
        out: Path,
        facts: Mapping[str, Any],
        summary: str,
        *,
        licences: Mapping[str, str],
        recipe: Mapping[str, Any],
        split_rule: str | None = None,
        sources: Mapping[str, Path] | None = None,
    ) -> Path:
        """Write ``out`` (.npz, compressed) and its cards beside it, each atomically, the .json
        last; returns ``out``.

        Parameters
        ----------
        facts
            What the card says of the content beyond its sizes, in order.
        summary
            The same for people, below the table of sizes; ``{bytes}`` and ``{sha256}`` are filled
            in.
        licences, recipe
            Of the parts of the content, and how it was made.
        split_rule
            None for the layout's.
        sources
            The user's files that it was converted from, by a name that says nothing of the machine:
            their checksums go onto the card, so that :class:`ArchiveSource` notices a change.

        Raises ``FailedError`` if the folder cannot be written, or if :meth:`Layout.read` would not
        take the content.
        """
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **self.columns)
        content, sizes, independent = buffer.getvalue(), self.sizes(), self.units()
        if broken := self.layout.table_of(content).broken():
            raise FailedError(f"nothing was written: the arrays for {out.name} {broken}")
        units = f"{self.layout.unit}s"
        facts = dict(facts)
        if self.layout.positions is not None and len(self.counts):
            axis = facts["principal_axis_mean_abs"] = self.principal_axis()
            summary = f"{summary}\n{orientation(axis)}"
        card = {
            "name": out.stem,
            "version": "1",
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "sizes": sizes,
            units: independent,
            self.layout.items: int(self.counts.sum()),
            **facts,
            "units": dict(self.layout.units),
            "split_rule": split_rule or self.layout.split_rule,
            "licences": dict(licences),
            "recipe": dict(recipe),
        }
        if sources:
            card["sources"] = {
                name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
                for name, file in sources.items()
            }
        rule = card["split_rule"]
        rows = [f"| {split} | {independent[split]} | {sizes[split]} |" for split in SPLITS]
        people = f"""# {card["name"]} (version {card["version"]})

Written together with the data; the same facts for programs are in the `.json` file.

| split | {units} | {self.layout.samples} |
|---|---|---|
{_lines(rows)}

{summary.replace("{bytes}", str(len(content))).replace("{sha256}", card["sha256"])}

## Recipe
{_lines(f"- **{key}**: {plain(value)}" for key, value in recipe.items())}

## Units
{plain(self.layout.units)}.

## Split
{rule[0].upper() + rule[1:]}.

## Licence
{_lines(f"- **{key}**: {value}" for key, value in licences.items())}
"""
        write_atomically(out, content)
        write_atomically(out.with_suffix(".md"), people.encode())
        write_atomically(out.with_suffix(".json"), (json.dumps(card, indent=2) + "\n").encode())
        return out


_lines = "\n".join

_TURNED = 0.6
"""Mean |x|, |y| or |z| of principal axes above which samples lie in a common orientation."""


def orientation(axis: Sequence[float]) -> str:
    """What :meth:`RaggedTable.principal_axis` means, for people."""
    values = "/".join(f"{value:.3f}" for value in axis)
    how = (
        "so samples lie in a common orientation (canonicalised): a model that sees them unrotated "
        "need not learn other orientations"
        if max(axis) > _TURNED
        else "so samples lie in no common orientation"
    )
    return (
        f"Mean |x|/|y|/|z| of a sample's principal axis: {values} (0.5 each if isotropic), {how}."
    )


def empty_splits(sizes: Mapping[str, int]) -> str:
    """The splits of no sample, for people."""
    return " and ".join(name for name, size in sizes.items() if size == 0)


def plain(value: Any) -> str:
    """A card's value as people read it: ``key value, key value`` of a mapping, items with commas of
    a list."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


class TableBuilder:
    """Gathers the samples of one named unit after another; memory is that of the table.

    For layouts with one column per unit, of the units' names.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._content = {name: bytearray() for name in layout.columns}
        self._units: dict[str, int] = {}
        self._names: list[str] = []
        self.left_out: Counter[str] = Counter()
        """Samples left out, by reason."""

    def add_samples(
        self,
        name: str,
        counts: NDArray[np.integer],
        split: str | None,
        *,
        identity: str | None = None,
        **columns: NDArray[Any],
    ) -> None:
        """Add samples of the unit ``name`` with ``counts`` [samples] items each.

        ``identity`` tells units apart where one may have several names (default: the name);
        ``split`` is None for the split that it draws; ``columns`` are the rows of all others,
        [items, ...] or [samples, ...]. Raises ``FailedError`` if a value does not fit its column.
        """
        unit = name if identity is None else identity
        number = self._units.setdefault(unit, len(self._units))
        if number == len(self._names):
            self._names.append(name)
        rows = {
            **columns,
            f"n_{self._layout.items}": counts,
            self._layout.unit: np.full(len(counts), number),
            "split": np.full(len(counts), SPLITS.index(split or split_of(unit))),
        }
        for column, values in rows.items():
            stored = np.asarray(values).astype(self._layout.columns[column].dtype)
            # An integer that is too large would come back as another, without a word.
            if stored.dtype.kind in "iu" and not np.array_equal(stored, values):
                raise FailedError(f"{name}: the values of {column} do not fit {stored.dtype}")
            self._content[column] += stored.tobytes()

    def excuse(self) -> str:
        """What was left out and why, for people."""
        return ", ".join(f"{count} {reason}" for reason, count in sorted(self.left_out.items()))

    def warn_of_left_out(self, source: str, used: int) -> None:
        """One ``EquivbenchWarning`` that counts what was left out of ``source``, if anything."""
        if self.left_out:
            warnings.warn(
                f"{source}: {self.left_out.total()} {self._layout.samples} left out "
                f"({self.excuse()}); {used} are used",
                EquivbenchWarning,
                stacklevel=3,
            )

    def finish(self, source: str, splits: Sequence[str] = SPLITS) -> RaggedTable:
        """The table of all that was added; raises ``FailedError``, naming ``source``, if one of
        ``splits`` has no sample."""
        columns: dict[str, NDArray[Any]] = {}
        for name, column in self._layout.columns.items():
            if column.per == "unit":
                columns[name] = np.array([each.encode() for each in self._names], dtype=np.bytes_)
            else:
                flat = np.frombuffer(self._content[name], dtype=column.dtype)
                columns[name] = flat.reshape(-1, *column.shape)
        table = RaggedTable(self._layout, columns)
        sizes = table.sizes()
        if empty := empty_splits({name: sizes[name] for name in splits}):
            excuse = f" ({self.excuse()})" if self.left_out else ""
            raise FailedError(
                f"{source} gives no usable {self._layout.samples[:-1]} for {empty}{excuse}; check "
                "that it is the whole published set"
            )
        return table


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
    if not isinstance(card, dict) or not all(
        isinstance(card.get(name), str) for name in ("sha256", "version")
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

    def prepare(self) -> Path:
        """The file, built first if it is missing or its sources have changed; raises
        ``FailedError`` with what to do. Reading it checks it."""
        path = self.path()
        # The card is written last: without it the file was not finished.
        if self.build is not None and (
            not path.with_suffix(".json").exists() or self.changed_sources()
        ):
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

        With ``since`` a file of the same size that is no younger than that file counts as the same
        without being read.
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
            if same and (since is None or stat.st_mtime_ns > since.stat().st_mtime_ns):
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


def required(module: str, what: str, extra: str) -> Any:
    """The module that ``what`` ("SPICE is read") is done with; raises ``FailedError`` with the line
    that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise FailedError(
            f"{what} with {module}, which is not installed; pip install 'equivbench[{extra}]'"
        ) from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def show_progress(done: int, total: int, what: str) -> None:
    """One line on a terminal, rewritten until all is done."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done}/{total} {what}" + ("\n" if done == total else ""))
