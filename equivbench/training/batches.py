"""The data part of a step: samples in their order, rotated if the recipe augments, with noise and
derived inputs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from equivbench.specs import Recipe
from equivbench.symmetry.rotations import random_rotations
from equivbench.tasks.base import Split, Task
from equivbench.training.order import Order
from equivbench.training.streams import generator

Assembled = tuple[dict[str, Tensor], dict[str, Tensor]]
"""(inputs, targets) on the device."""


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
        batch: Mapping[str, Tensor] = self._split.collate(self._order.take(start, count))
        if self._rotated > 0:
            rotations = random_rotations(
                count, generator=generator(self._seed, "rotations", start), dtype=torch.float64
            )
            # The rotations of those that are rotated do not depend on how many are: fractions
            # differ in nothing else.
            left = (
                torch.rand(count, generator=generator(self._seed, "augmented", start))
                >= self._rotated
            )
            rotations[left] = torch.eye(3, dtype=torch.float64)
            index = None if self._task.index_field is None else batch[self._task.index_field]
            batch = self._task.rotate(batch, rotations, index)
        return self._assemble(batch, self._seed, "noise", start)

    def canonical(self, count: int, start: int = 0) -> Assembled:
        """``count`` stored samples as they are, the same in every run: what compilation is traced
        and checked on."""
        indices = torch.arange(start, start + count) % len(self._split)
        return self._assemble(self._split.collate(indices), 0, "canonical noise", start)

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

    def _assemble(
        self, batch: Mapping[str, Tensor], seed: int, stream: str, start: int
    ) -> Assembled:
        moved = self._moved(batch)
        # Large noise (a grid) is drawn where it is used.
        noise = self._task.noise(moved, generator(seed, stream, start, device=self._device))
        return self._task.assemble(moved, self._moved(noise), self._requires)

    def _moved(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if self._device.type == "cpu":
            return tensors
        return {
            name: tensor.to(self._device, non_blocking=True) for name, tensor in tensors.items()
        }
