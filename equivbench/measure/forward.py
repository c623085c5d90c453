"""A model's forward passes under rotation: in evaluation mode, in its precision, its prediction
taken back in float64."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from equivbench.errors import EquivbenchError, FailedError, UsageError
from equivbench.measure.rotated_set import Chunk, Draw, EvaluationPrecision, cast
from equivbench.tasks.base import Task

if TYPE_CHECKING:
    from equivbench.tasks.base import Batch


@dataclass(frozen=True)
class Caller:
    """Calls a model as its task says and checks what comes back."""

    task: Task
    model: nn.Module
    precision: EvaluationPrecision
    device: torch.device

    def outputs(self, inputs: Mapping[str, Tensor]) -> Batch:
        """The model's outputs.

        Raises ``UsageError`` if it cannot be called with these keywords or the prediction is not
        among what it returns, ``FailedError`` if it raises.
        """
        self._check(inputs)
        reduced = (
            torch.autocast(self.device.type, torch.bfloat16)
            if self.precision == "bf16"
            else contextlib.nullcontext()
        )
        try:
            with reduced:
                outputs = self.model(
                    **cast(inputs, torch.float64 if self.precision == "float64" else torch.float32)
                )
        except EquivbenchError:
            raise
        except Exception as error:  # a model is someone's code and may raise anything
            raise FailedError(
                f"{type(self.model).__name__} failed on a batch: {type(error).__name__}: {error}"
            ) from error
        if isinstance(outputs, Mapping) and self.task.prediction in outputs:
            return outputs
        found = (
            f"the outputs {', '.join(outputs)}"
            if isinstance(outputs, Mapping)
            else f"a {type(outputs).__name__}"
        )
        raise UsageError(
            f"the model returned {found}; task {self.task.name!r} needs a mapping with "
            f"{self.task.prediction!r}"
        )

    def taken_back(self, outputs: Batch, inverse: Tensor, chunk: Chunk) -> Tensor:
        """[rows, ...] float64: the prediction in the sample's own orientation, with no rounding but
        the model's."""
        name = self.task.prediction
        found, wanted = tuple(outputs[name].shape), tuple(chunk.target.shape)
        if found != wanted:
            raise UsageError(
                f"the model's {name!r} has shape {found}, but task {self.task.name!r} needs "
                f"{wanted} here"
            )
        return self.task.rotate({name: outputs[name].double()}, inverse, chunk.index)[name]

    def runs(self, chunk: Chunk) -> Iterator[tuple[Draw, Mapping[str, Tensor], Batch]]:
        """(draw, inputs, outputs) of every draw of ``chunk``.

        With feedback, what a first pass over the samples as they are gives goes in, placed like the
        other inputs.
        """
        first: dict[str, Tensor] = {}
        feedback = self.task.feedback
        if feedback is not None and chunk.plain is not None:
            first = {feedback.input: self.outputs(chunk.plain)[feedback.output].double()}
        for draw in chunk.draws:
            inputs = {**draw.inputs, **draw.place(first)}
            yield draw, inputs, self.outputs(inputs)

    def predictions(self, chunk: Chunk) -> Tensor:
        """[draws, rows, ...] float64: every draw's prediction, taken back."""
        return torch.stack(
            [self.taken_back(outputs, draw.inverse, chunk) for draw, _, outputs in self.runs(chunk)]
        )

    def _check(self, inputs: Mapping[str, Tensor]) -> None:
        try:
            inspect.signature(self.model.forward).bind(**inputs)
        except TypeError as error:
            given = ", ".join(inputs)
            raise UsageError(
                f"the model cannot be called with the inputs {given} of task {self.task.name!r}: "
                f"{error}"
            ) from None


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside the block; afterwards every module is in the mode
    that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
