"""Less data: a task's data with a fraction of its training groups, nested from one fraction to the
next."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from equivbench.errors import UsageError
from equivbench.tasks.base import Split, TaskData

if TYPE_CHECKING:
    from torch import Tensor

    from equivbench.tasks.base import Batch

_SEED = 20_000
"""Of the order in which groups are kept: part of what a fraction means, so never changed."""


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
        from equivbench.tasks.molecules import numbered

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
    import torch

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
