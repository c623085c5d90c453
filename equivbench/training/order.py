"""The order in which training samples are seen: concatenated epoch permutations, whatever the batch
size."""

from __future__ import annotations

import torch
from torch import Tensor

from equivbench.errors import FailedError
from equivbench.training.streams import generator


class Order:
    """The endless sequence perm(0), perm(1), ... of ``size`` samples each.

    Sample ``k`` of the sequence depends on ``seed`` and ``k`` alone, so two arms with different
    batch sizes see the same samples in the same order, and a resumed run goes on where it was.
    Batches run across epoch ends.
    """

    def __init__(self, seed: int, size: int) -> None:
        if size < 1:
            raise FailedError("the training split holds no samples")
        self._seed = seed
        self._size = size
        self._epoch = -1
        self._permutation = torch.empty(0, dtype=torch.int64)

    def take(self, start: int, count: int) -> Tensor:
        """[count] int64: the samples at positions ``start`` to ``start + count - 1`` of the
        sequence."""
        pieces = []
        while count > 0:
            epoch, offset = divmod(start, self._size)
            piece = self._epoch_order(epoch)[offset : offset + count]
            pieces.append(piece)
            start, count = start + len(piece), count - len(piece)
        return torch.cat(pieces) if pieces else torch.empty(0, dtype=torch.int64)

    def _epoch_order(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            self._permutation = torch.randperm(
                self._size, generator=generator(self._seed, "order", epoch)
            )
            self._epoch = epoch
        return self._permutation
