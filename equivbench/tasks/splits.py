"""Splits in memory: the samples of one split out of tensors that all splits share, and a part of
the training split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equivbench.errors import UsageError
from equivbench.tasks.base import SPLITS, Batch, Card, Split, TaskData
from equivbench.tasks.storage import RaggedTable

_SEED = 20_000
"""Of the order in which groups are kept: part of what a fraction means, so never changed."""


def numbered(labels: Tensor) -> Tensor:
    """[samples] int64: ``labels`` [samples] renumbered from 0 in their order, as a split's
    ``groups`` are."""
    found: Tensor = torch.unique(labels, return_inverse=True)[1]
    return found


class RaggedSplit:
    """The samples ``chosen`` [chosen] int64 of a table (:mod:`equivbench.tasks.storage`)."""

    def __init__(self, table: RaggedTable, chosen: Tensor) -> None:
        self.chosen = chosen
        """[chosen] int64, the samples of this split in the data set."""
        columns = (table.first, table.counts, table[table.layout.unit])
        self.first, self.counts, self.unit = (
            torch.from_numpy(column.astype(np.int64))[chosen] for column in columns
        )
        """[chosen] int64 each: the row of a sample's first item, its items (atoms, residues), and
        its unit, numbered over the whole data set."""
        self.flat = {
            name: torch.from_numpy(table[name])
            for name, column in table.layout.columns.items()
            if column.per == "item"
        }
        """[items, ...] the columns of items, of all splits."""

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.chosen)

    @property
    def groups(self) -> Tensor:
        """[samples] int64: the unit of each sample, numbered from 0 in this split."""
        return numbered(self.unit)

    def items_of(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(batch [items] sorted index into ``indices``, rows [items] of the flat tensors) of the
        samples at ``indices`` [n], one after another."""
        counts = self.counts[indices]
        batch = torch.repeat_interleave(counts)
        # Item a of the batch is row first[s] + (a - items before its sample in the batch).
        shift = self.first[indices] - (counts.cumsum(0) - counts)
        return batch, torch.arange(len(batch)) + shift[batch]


def ragged_data(
    table: RaggedTable,
    card: Mapping[str, Any],
    name: str,
    split: Callable[[RaggedTable, Tensor], Split],
    usable: NDArray[np.bool_] | None = None,
) -> TaskData:
    """The splits of ``table`` as the data set ``name``; ``usable`` [samples] leaves out others."""
    splits = {}
    for code, part in enumerate(SPLITS):
        member = table["split"] == code
        member = member if usable is None else member & usable
        splits[part] = split(table, torch.from_numpy(np.flatnonzero(member)))
    sizes = {part: len(samples) for part, samples in splits.items()}
    made = Card(name, card["version"], card["sha256"], sizes)
    return TaskData(splits["train"], splits["validation"], splits["test"], made)


@dataclass(frozen=True)
class Subset:
    """The samples ``chosen`` [samples] int64 of another split."""

    split: Split
    chosen: Tensor

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.chosen)

    @property
    def groups(self) -> Tensor:
        """[samples] int64: the group of each sample, numbered from 0 in this subset."""
        return numbered(self.split.groups[self.chosen])

    def collate(self, indices: Tensor) -> Batch:
        """The samples at ``indices`` [n] of this subset as one batch."""
        return self.split.collate(self.chosen[indices])


def with_fraction(data: TaskData, fraction: float) -> TaskData:
    """``data`` with all samples of a fraction of the training groups (molecules, clusters), at
    least one.

    The groups of a smaller fraction are among those of a larger one. Validation and test splits are
    untouched, and so is what was fitted on the whole training split (energy references): these set
    the zero of the labels, not a prediction. The card's sizes gain ``fraction`` in parts per
    thousand. Raises ``UsageError`` unless 0 < fraction <= 1.
    """
    if not 0 < fraction <= 1:
        raise UsageError(
            f"the data fraction {fraction} is not above 0 and at most 1; give for example 0.25"
        )
    if fraction == 1:
        return data
    groups = data.train.groups
    order = torch.randperm(int(groups.max()) + 1, generator=torch.Generator().manual_seed(_SEED))
    kept = order[: max(1, round(fraction * len(order)))]
    train = Subset(data.train, torch.isin(groups, kept).nonzero()[:, 0])
    sizes = {**data.card.sizes, "train": len(train), "fraction": round(1000 * fraction)}
    return replace(data, train=train, card=replace(data.card, sizes=sizes))
