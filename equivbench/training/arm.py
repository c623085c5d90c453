"""What is trained: a model with its recipe, on a task's training split, judged by an evaluator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from equivbench.specs import Recipe
from equivbench.tasks.base import Split, Task

if TYPE_CHECKING:
    from equivbench.measure.equivariance import Measurement


class Evaluates(Protocol):
    """What the trainer asks of :class:`equivbench.measure.evaluator.Evaluator`."""

    def evaluate(self, model: nn.Module, floor: bool) -> Measurement:
        """Measure ``model`` on the fixed, rotated test set; ``floor``: with the floor of the
        share."""
        ...

    def baselines(self) -> dict[str, float]:
        """Board metric of the predictors that need no training, by name."""
        ...


@dataclass(frozen=True)
class Arm:
    """One arm, ready to be trained on ``device``."""

    task: Task
    split: Split
    model: nn.Module
    """Owns the weights; compiled in place where the recipe says so."""
    module: nn.Module
    """What is called: the model in its symmetrising wrapper, or the model itself."""
    requires: Mapping[str, float]
    recipe: Recipe
    evaluator: Evaluates
    verify: Callable[[Measurement], bool] | None
    """Whether a measurement bears out the declared symmetry; None where none is declared."""
    device: torch.device
    evaluated_at_once: int
    """Samples in a forward pass without gradients: the evaluation graph is traced at this size."""

    def with_feedback(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``inputs`` with the task's feedback from a pass without gradients."""
        feedback = self.task.feedback
        assert feedback is not None
        with torch.no_grad():
            return {**inputs, feedback.input: self.module(**inputs)[feedback.output].detach()}
