"""Training data: the random streams, the order of the samples, and the batches made of them.

Everything here is a function of the seed and of a position: two arms see the same samples in the
same order whatever their batch sizes, and a resumed run needs no generator state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from equivbench.errors import FailedError
from equivbench.specs import Recipe
from equivbench.symmetry.rotations import random_rotations
from equivbench.tasks.base import Split, Task

Assembled = tuple[dict[str, Tensor], dict[str, Tensor]]
"""(inputs, targets) on the device."""


def stream_seed(seed: int, stream: str, *counters: int) -> int:
    """A 63-bit seed for one draw of a named stream, e.g. ``stream_seed(0, "rotations", step)``.

    Streams of different names or counters are independent for our purposes (BLAKE2b of the exact
    triple). torch's CPU generator keeps the low 32 bits, so two of 10^5 draws may coincide by
    chance; each draw is still Haar or normal.
    """
    text = repr((int(seed), stream, tuple(int(counter) for counter in counters)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(
    seed: int, stream: str, *counters: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A generator on ``device`` at the start of that draw; two calls with the same arguments give
    the same numbers."""
    return torch.Generator(device).manual_seed(stream_seed(seed, stream, *counters))


def seed_global(seed: int, stream: str, *counters: int, device: torch.device | None = None) -> None:
    """Set torch's global generators (weight initialisation, dropout) to that draw: the CPU's, and
    that of ``device`` or of every GPU in use.

    ``torch.manual_seed`` without its queue for devices that are not there, which costs 0.2 ms a
    call and grows.
    """
    drawn = stream_seed(seed, stream, *counters)
    torch.default_generator.manual_seed(drawn)
    if device is None:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.manual_seed_all(drawn)
    elif device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(drawn)


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


class Batches:
    """Training batches of one arm. What is at a position of the sample order depends on the seed
    and the position alone."""

    def __init__(
        self,
        task: Task,
        split: Split,
        recipe: Recipe,
        requires: Mapping[str, float],
        seed: int,
        device: torch.device,
    ) -> None:
        self._task = task
        self._split = split
        self._rotated = recipe.augmentation_fraction if recipe.augmentation == "haar" else 0.0
        self._requires = requires
        self._seed = seed
        self._device = device
        self._order = Order(seed, len(split))

    def at(self, start: int, count: int) -> Assembled:
        """The ``count`` samples from position ``start`` of the order on, augmented and
        assembled."""
        return self._task.assemble(*self.drawn(start, count), self._requires)

    def drawn(self, start: int, count: int) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """(samples, noise) that :meth:`at` assembles, on the device, the samples augmented."""
        batch: Mapping[str, Tensor] = self._split.collate(self._order.take(start, count))
        if self._rotated > 0:
            rotations = random_rotations(
                count, generator=generator(self._seed, "rotations", start), dtype=torch.float64
            )
            if self._rotated < 1:
                # The rotations of those that are rotated do not depend on how many are: fractions
                # differ in nothing else.
                drawn = torch.rand(count, generator=generator(self._seed, "augmented", start))
                rotations[drawn >= self._rotated] = torch.eye(3, dtype=torch.float64)
            index = None if self._task.index_field is None else batch[self._task.index_field]
            batch = self._task.rotate(batch, rotations, index)
        return self._with_noise(batch, self._seed, "noise", start)

    def canonical(self, count: int, start: int = 0) -> Assembled:
        """``count`` stored samples as they are, the same in every run: what compilation is traced
        and checked on."""
        indices = torch.arange(start, start + count) % len(self._split)
        drawn = self._with_noise(self._split.collate(indices), 0, "canonical noise", start)
        return self._task.assemble(*drawn, self._requires)

    def feeds_back(self, start: int) -> bool:
        """Whether the batch from position ``start`` on has its feedback from a first pass (else it
        is zeros)."""
        feedback = self._task.feedback
        if feedback is None:
            return False
        return (
            float(torch.rand((), generator=generator(self._seed, "feedback", start)))
            < feedback.probability
        )

    def _with_noise(
        self, batch: Mapping[str, Tensor], seed: int, stream: str, start: int
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        moved = self._moved(batch)
        # Large noise (a grid) is drawn where it is used.
        noise = self._task.noise(moved, generator(seed, stream, start, device=self._device))
        return moved, self._moved(noise)

    def _moved(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if self._device.type == "cpu":
            return tensors
        return {
            name: tensor.to(self._device, non_blocking=True) for name, tensor in tensors.items()
        }
