"""A model's forward passes over the rotated set: it is called as its task says, what comes back is
checked, and its predictions are taken back in float64."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equivbench.errors import EquivbenchError, FailedError, ModelError
from equivbench.measure.calls import call, checked, without_gradients
from equivbench.measure.precision import EvaluationPrecision, cast, input_dtype
from equivbench.measure.rotated_set import Chunk, Draw
from equivbench.symmetry.types import transform
from equivbench.tasks.base import Batch, Task


@dataclass(frozen=True)
class Caller:
    """Calls a model as its task says and checks what comes back."""

    task: Task
    model: nn.Module
    precision: EvaluationPrecision
    device: torch.device
    differentiable: bool = False
    """Whether gradients flow from the outputs to the weights."""

    def outputs(
        self, inputs: Mapping[str, Tensor], like: Mapping[str, Tensor] | None = None
    ) -> Batch:
        """The model's outputs, each like the tensor of its name in ``like`` where there is one.

        The model gets copies of ``inputs``. Raises ``ModelError`` if it cannot be called with these
        keywords, changes its process, or returns something else than the task declares,
        ``FailedError`` if it raises.
        """
        try:
            inspect.signature(self.model.forward).bind(**inputs)
        except TypeError as error:
            raise ModelError(
                f"the model cannot be called with the inputs {', '.join(inputs)} of task "
                f"{self.task.name!r}: {error}{self.task.advice}"
            ) from None
        reduced = (
            torch.autocast(self.device.type, torch.bfloat16)
            if self.precision == "bf16"
            else contextlib.nullcontext()
        )
        placed = cast(inputs, input_dtype(self.precision))
        try:
            with reduced:
                returned = call(self.model, placed, copied=True)
        except EquivbenchError:
            raise
        except Exception as error:  # a model is someone's code and may raise anything
            raise FailedError(
                f"{type(self.model).__name__} failed on a batch: {type(error).__name__}: {error}"
            ) from error
        outputs = checked(self.task, returned, like or {})
        if self.differentiable:
            return outputs
        # The graph of a model's own derivatives ends here.
        return {
            name: output.detach() if isinstance(output, Tensor) else output
            for name, output in outputs.items()
        }

    def taken_back(
        self, outputs: Batch, inverse: Tensor, chunk: Chunk, output: str | None = None
    ) -> Tensor:
        """[rows, ...] float64: the prediction in the sample's own orientation, with no rounding but
        the model's; or another ``output``."""
        name = self.task.prediction if output is None else output
        prediction = {name: outputs[name].double()}
        return transform(prediction, self.task.fields, inverse, chunk.index)[name]

    def reported(self, outputs: Batch, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """[rows] float64 squared errors of the further outputs that the task reports, of those that
        the model gives and the data has."""
        squares = {}
        for name in self.task.reported:
            if name in outputs and name in targets:
                difference = outputs[name].double() - targets[name].double()
                squares[name] = difference.square().reshape(len(difference), -1).sum(1)
        return squares

    def runs(self, chunk: Chunk) -> Iterator[tuple[Draw, Mapping[str, Tensor], Batch]]:
        """(draw, inputs, outputs) of every draw of ``chunk``.

        With feedback, what a first pass over the samples as they are gives goes in, placed like the
        other inputs.
        """
        first: dict[str, Tensor] = {}
        feedback = self.task.feedback
        if feedback is not None and chunk.plain is not None:
            like = {self.task.prediction: chunk.target}
            first = {feedback.input: self.outputs(chunk.plain, like)[feedback.output].double()}
        for draw in chunk.draws:
            inputs = {**draw.inputs, **draw.place(first)}
            yield draw, inputs, self.outputs(inputs, draw.targets)

    def predictions(self, chunk: Chunk) -> Tensor:
        """[draws, rows, ...] float64: every draw's prediction, taken back."""
        return torch.stack(
            [self.taken_back(outputs, draw.inverse, chunk) for draw, _, outputs in self.runs(chunk)]
        )


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block, without gradients of the weights; afterwards every module
    is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with without_gradients(model.parameters()):
            yield
    finally:
        for module, training in modes:
            module.training = training
