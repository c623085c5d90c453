"""The symmetry loss ``rotational-gradient``: a penalty on the derivative of each sample's energy by
a rotation of the sample (equigrad: Rhodes et al. 2025, 2504.06231).

An energy that rotations leave alone does not change where its sample is turned by a small angle,
about whichever axis. Where forces are the energy's gradient, the three derivatives are the torque
of these forces, with the other sign: they take no further prediction, and no axis is drawn. The
penalty is their length, averaged over the samples.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from equivbench.tasks.base import Batch
from equivbench.training.arm import Arm


class RotationalGradient:
    """The penalty of the training steps of ``arm``.

    Raises ``UsageError`` where the task does not read such derivatives from what the arm predicts.
    """

    def __init__(self, arm: Arm) -> None:
        self.arm = arm
        self._gradient = arm.task.rotational_gradient(arm.declared.variant, arm.requires)

    def at(self, start: int, count: int) -> RotationalGradient:
        """That of any samples: nothing is drawn."""
        return self

    def outputs(
        self,
        inputs: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        samples: slice = slice(None),
    ) -> Batch:
        """Nothing: the penalty is of what the arm predicts in any case."""
        return {}

    def penalty(self, outputs: Batch, second: Batch, inputs: Batch, targets: Batch) -> Tensor:
        """The recipe's weight times the mean over samples of the length of the energy's three
        derivatives; a scalar."""
        lengths = torch.linalg.vector_norm(self._gradient(outputs, inputs), dim=1)
        weighed: Tensor = self.arm.recipe.symmetry_loss * lengths.mean()
        return weighed
