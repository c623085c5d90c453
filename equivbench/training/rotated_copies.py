"""The symmetry loss ``rotated-copy``: a penalty on the squared difference between the prediction,
rotated, and the prediction on a rotated copy of each sample.

For each sample x of the batch an element R of the group is drawn, the network predicts the rotated
sample too, and the penalty is the mean of |f(R x) - R f(x)|^2, with both predictions trained
(REMUL: Elhag et al. 2410.17878). The mean is that of the board metric, weights and all: on
augmented samples, whose orientations are uniform over the group, it is on average twice their
equivariance error.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from equivbench.symmetry.rotations import octahedral_rotations, random_orthogonal
from equivbench.symmetry.types import rotate, transform
from equivbench.tasks.base import Batch, Task
from equivbench.training.arm import Arm
from equivbench.training.data import generator


class RotatedCopies:
    """The penalty of the training steps of ``arm``, its elements of the group drawn by ``seed``.

    A step predicts twice, which its clock counts. The group is the one that the arm is judged
    under.
    """

    def __init__(self, arm: Arm, seed: int) -> None:
        self.arm, self._seed = arm, seed
        self.group = arm.declared.pair_preset.group or arm.task.group

    def at(self, start: int, count: int) -> RotatedCopy:
        """That of the ``count`` samples from position ``start`` of the order on, a function of the
        seed and the position alone."""
        drawn = generator(self._seed, "symmetry loss", start)
        if self.group == "octahedral":
            every = octahedral_rotations(torch.float64)
            elements = every[torch.randint(len(every), (count,), generator=drawn)]
        else:
            elements = random_orthogonal(count, self.group, drawn)
        return RotatedCopy(self, elements.to(self.arm.device))


class RotatedCopy:
    """The samples of one batch under ``elements`` [samples, 3, 3], and the penalty of what the arm
    of ``loss`` predicts for them."""

    def __init__(self, loss: RotatedCopies, elements: Tensor) -> None:
        self._loss, self._elements = loss, elements

    def outputs(
        self,
        inputs: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        samples: slice = slice(None),
    ) -> Batch:
        """The arm's outputs on the rotated ``inputs`` of the ``samples``, some of the batch's in a
        row; these look like ``targets``."""
        rotated = self._moved(inputs, inputs, self._elements[samples])
        return self._loss.arm.outputs(rotated, targets)

    def penalty(self, outputs: Batch, second: Batch, inputs: Batch, targets: Batch) -> Tensor:
        """The recipe's weight times the mean squared difference between ``second``, what
        :meth:`outputs` gives for the whole batch, and the rotated ``outputs``; a scalar."""
        arm = self._loss.arm
        name = arm.task.prediction
        expected = self._moved({name: outputs[name]}, inputs, self._elements)[name]
        dtype = targets[name].dtype
        apart = second[name].to(dtype) - expected.to(dtype)
        return arm.recipe.symmetry_loss * metric_of(arm.task, apart, {**inputs, **targets})

    def _moved(
        self, tensors: Mapping[str, Tensor], inputs: Batch, elements: Tensor
    ) -> dict[str, Tensor]:
        """``tensors`` under the ``elements`` of the samples in ``inputs``."""
        task = self._loss.arm.task
        index = None if task.index_field is None else inputs.get(task.index_field)
        moved = transform if self._loss.group == "o3" else rotate
        return moved(tensors, task.fields, elements, index)


def metric_of(task: Task, differences: Tensor, batch: Batch) -> Tensor:
    """The board metric of ``task`` where predictions are off by ``differences``, a scalar: the
    weighted sum of their squares over that of the weights in ``batch``."""
    weights = task.weights(batch)
    if weights is None:
        return differences.square().sum() / len(differences)
    # What is padding may hold anything.
    squares = differences.masked_fill(weights == 0, 0.0).square()
    return (weights * squares).sum() / weights.sum()
