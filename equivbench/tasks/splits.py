"""Splits in memory: the samples of one split out of tensors that all splits share, and a part of
the training split."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from equivbench.errors import UsageError
from equivbench.tasks.base import Batch, Split, TaskData

_SEED = 20_000
"""Of the order in which groups are kept: part of what a fraction means, so never changed."""


def numbered(labels: Tensor) -> Tensor:
    """[samples] int64: ``labels`` [samples] renumbered from 0 in their order, as a split's
    ``groups`` are."""
    found: Tensor = torch.unique(labels, return_inverse=True)[1]
    return found


class RaggedSplit:
    """A choice of samples out of flat tensors (:mod:`equivbench.tasks.ragged`).

    Parameters
    ----------
    first, counts, unit
        [samples] int64, of the whole data set: the row of each sample's first item, its number of
        items, and its unit of independence.
    chosen
        [chosen] int64, the samples of this split.
    """

    def __init__(self, first: Tensor, counts: Tensor, unit: Tensor, chosen: Tensor) -> None:
        self.chosen = chosen
        """[chosen] int64, the samples of this split in the data set."""
        self.first = first[chosen]
        """[chosen] int64: the row of each sample's first item."""
        self.counts = counts[chosen]
        """[chosen] int64: the items (atoms, residues) of each sample."""
        self.unit = unit[chosen]
        """[chosen] int64: the unit of each sample, numbered over the whole data set."""

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
