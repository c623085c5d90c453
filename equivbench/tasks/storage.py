"""Data sets on disk: samples of unequal length as one table of flat columns, kept as one .npz with
a card for programs (.json, its SHA-256 inside) and one for people (.md).

Atoms of molecules or residues of chains follow one another in the columns of *items*; a column of
counts says how many belong to each *sample*; samples belong to *units* (molecules, clusters of
sequences), which are independent of one another and lie in one split each. Imports no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from equivbench.errors import EquivbenchWarning, FailedError
from equivbench.records.files import write_atomically
from equivbench.tasks.archives import read_card, remedy, sha256_of, verified_content
from equivbench.tasks.base import SPLITS
from equivbench.tasks.mapped import MAPPED_FROM, mapped_columns, unpacked_bytes

USERS_COPY = {
    "data": "as its publisher states; this is the user's own copy, and equivbench does not "
    "distribute it"
}
"""The licences on the card of a set that is converted from published files."""
_PART = 2**20
"""Items of a part of a table: some 30 MB of coordinates, so that what is computed from them is no
second copy of a large table."""


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
        """(table, card) of ``path``, memory-mapped if it is large; raises ``FailedError``, naming
        the file, if it or its card is missing, cut short, changed or of the wrong content."""
        try:
            if unpacked_bytes(path) < MAPPED_FROM:
                content, card = verified_content(path)
                table = self.table_of(content)
                table.check(path)
            else:
                card = read_card(path)
                columns = mapped_columns(
                    path, card, self.columns, lambda each: RaggedTable(self, each).check(path)
                )
                table = RaggedTable(self, columns)
        except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
            raise FailedError(
                f"{path} is not a {self.kind} archive ({error}); {remedy(path)}"
            ) from error
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

    def parts(self) -> Iterator[tuple[slice, slice]]:
        """(samples, items) of parts of about a million items that follow one another and are all
        of the table."""
        ends = self.counts.cumsum()
        sample, item = 0, 0
        while sample < len(ends):
            stop = max(sample + 1, int(np.searchsorted(ends, item + _PART, "right")))
            yield slice(sample, stop), slice(item, int(ends[stop - 1]))
            sample, item = stop, int(ends[stop - 1])

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
        rows_of = {"sample": 0, "item": 1}
        if not all(
            np.isfinite(self[name][part[rows_of[columns[name].per]]]).all()
            for part in self.parts()
            for name in floats
        ):
            return "hold values that are not finite"
        return ""

    def check(self, path: Path) -> None:
        """Raise ``FailedError`` where the columns, read from ``path``, do not hang together."""
        if broken := self.broken():
            raise FailedError(f"the arrays of {path} {broken}; {remedy(path)}")

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
        last, and that of an earlier file gone first: a file and a .json that are both there were
        written together. Returns ``out``.

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
            their checksums go onto the card, so that an
            :class:`equivbench.tasks.archives.ArchiveSource` notices a change.

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
        # Where it cannot be removed nothing can be written either, which is said next.
        with contextlib.suppress(OSError):
            out.with_suffix(".json").unlink()
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
