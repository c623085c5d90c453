"""Samples of unequal length as one table of flat columns, and the split that each sample is in.

Atoms of molecules or residues of chains follow one another in the columns of *items*; a column of
counts says how many belong to each *sample*; samples belong to *units* (molecules, clusters of
sequences), which are independent of one another and lie in one split each. Imports no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

SPLITS = ("train", "validation", "test")
"""In the order of the codes in a table's ``split`` column."""


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
    """The sentence about :func:`split_of` on a card.

    ``units`` says what is split ("by molecule"), ``name`` what a unit is named by.
    """
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
    """The columns of a task's tables.

    Every table also has, or must list, ``split`` [samples] uint8, codes into ``SPLITS``.
    """

    kind: str
    """What a file holds, for messages: ``force-field``."""
    columns: Mapping[str, RaggedColumn]
    """In the order in which they are written."""
    counts: str
    """The column [samples] of the number of items in each sample."""
    unit: str
    """The column [samples] that numbers the unit of independence of each sample."""
    items: str
    """What people call the items: ``atoms``."""
    samples: str
    """... the samples: ``conformations``."""
    units: str
    """... the units: ``molecules``."""


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
        return self[self.layout.counts].astype(np.int64)

    @property
    def first(self) -> NDArray[np.int64]:
        """[samples] row of each sample's first item in the columns of items."""
        counts = self.counts
        return np.asarray(counts.cumsum() - counts)

    @property
    def is_consistent(self) -> bool:
        """Whether all columns have the lengths and trailing shapes that the layout says."""
        rows = {"item": int(self.counts.sum()), "sample": len(self[self.layout.counts])}
        return all(
            self[name].shape == (rows[column.per], *column.shape)
            for name, column in self.layout.columns.items()
            if column.per != "unit"
        )

    def sizes(self) -> dict[str, int]:
        """Samples in each split."""
        return {name: int((self["split"] == code).sum()) for code, name in enumerate(SPLITS)}

    def units(self) -> dict[str, int]:
        """Distinct units of independence in each split."""
        unit, split = self[self.layout.unit], self["split"]
        return {name: len(np.unique(unit[split == code])) for code, name in enumerate(SPLITS)}

    def empty_splits(self) -> list[str]:
        """The splits that no sample is in."""
        return [name for name, size in self.sizes().items() if size == 0]


class TableBuilder:
    """Gathers the samples of one named unit after another; memory is that of the table.

    For layouts with one column per unit, of the units' names.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._content = {name: bytearray() for name in layout.columns}
        self._units: dict[str, int] = {}

    def add(
        self, unit: str, counts: NDArray[np.integer], split: str | None, **columns: NDArray[Any]
    ) -> None:
        """Add samples of ``unit`` with ``counts`` [samples] items each.

        ``split`` is None for the split that the name draws; ``columns`` are the rows of all other
        columns, [items, ...] or [samples, ...].
        """
        number = self._units.setdefault(unit, len(self._units))
        code = SPLITS.index(split_of(unit) if split is None else split)
        rows = {
            **columns,
            self._layout.counts: counts,
            self._layout.unit: np.full(len(counts), number),
            "split": np.full(len(counts), code),
        }
        for name, values in rows.items():
            dtype = self._layout.columns[name].dtype
            self._content[name] += np.asarray(values).astype(dtype).tobytes()

    def finish(self) -> RaggedTable:
        """The table of all that was added."""
        columns: dict[str, NDArray[Any]] = {}
        for name, column in self._layout.columns.items():
            if column.per == "unit":
                columns[name] = np.array([unit.encode() for unit in self._units], dtype=np.bytes_)
            else:
                flat = np.frombuffer(self._content[name], dtype=column.dtype)
                columns[name] = flat.reshape(-1, *column.shape)
        return RaggedTable(self._layout, columns)
