"""How the weights move: the optimisers that a recipe may name, the clipping of gradients, the
learning rate of a step, the moving average of the weights, all tensors that a run is, and whether
it diverges."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from equivbench.measure.measurement import Measurement
from equivbench.specs import Optimizer, Recipe

_OPTIMIZERS: Mapping[Optimizer, tuple[Callable[..., torch.optim.Optimizer], Mapping[str, Any]]] = {
    "adamw": (torch.optim.AdamW, {"fused": True}),
    "adam": (torch.optim.Adam, {"fused": True}),
    "nadam": (torch.optim.NAdam, {"decoupled_weight_decay": True}),
    "radam": (torch.optim.RAdam, {"decoupled_weight_decay": True}),
    "adamax": (torch.optim.Adamax, {}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "fused": True}),
}
_STARTS_AT_ONE = ("mu_product",)
"""State that is a product over the steps (NAdam's momenta); all other state is a sum or a mean and
starts at zero."""


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over all parameters alike, with torch's defaults (betas .9 and .999)
    and SGD's momentum .9.

    Weight decay is decoupled in adamw, nadam and radam, and added to the gradient in the others. It
    spares no parameter: equivariant layers keep their weights in flat vectors, so the usual rule
    "matrices only" would decay the plain arm and not the other. The state exists, as it is before
    any step, on return, so that a checkpoint has one layout at every step.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    make, options = _OPTIMIZERS[recipe.optimizer]
    optimizer = make(parameters, lr=0.0, weight_decay=recipe.weight_decay, **options)
    # A step at rate zero makes torch create the state without moving the weights.
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for state in optimizer.state.values():
        for name, value in state.items():
            value.fill_(float(name in _STARTS_AT_ONE))
    return optimizer


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float | None) -> Tensor:
    """Scale the gradients of ``parameters`` down to a joint Euclidean norm of ``limit``, where it
    is larger and there is a limit; returns the norm that they had.

    ``torch.nn.utils.clip_grad_norm_`` to the bit. That one calls a few operations for each tensor
    on a CPU, some two hundred in all for a network of many small ones.
    """
    gradients = [each.grad for each in parameters if each.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if limit is not None:
        factor = (limit / (norm + 1e-6)).clamp(max=1.0)
        # A CPU knows it by now; to ask another device would be to wait for it.
        if factor.device.type != "cpu" or float(factor) != 1.0:
            torch._foreach_mul_(gradients, factor)
    return norm


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use ``rate`` from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def named_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimiser's tensors (moments and step counts), live, named ``<parameter>.<key>``."""
    return {
        f"{name}.{key}": value
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for key, value in optimizer.state[parameter].items()
    }


def learning_rate(step: int, rate: float, warmup_steps: int) -> float:
    """The rate of ``step`` (from 0) before any cooldown: linear over ``warmup_steps``, then
    constant."""
    return rate * min(1.0, (step + 1) / warmup_steps) if warmup_steps > 0 else rate


def decay_at(step: int, decay: float) -> float:
    """min(decay, (1 + n) / (10 + n)) after update ``n`` = ``step``, counted from 0: a short run
    forgets its initial weights."""
    return min(decay, (1 + step) / (10 + step))


class Average:
    """The averaged weights of a model's parameters; buffers are taken as they are.

    ``average`` has the parameters' names, shapes and dtypes.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = [parameter for _, parameter in model.named_parameters()]
        self.average = {
            name: parameter.detach().clone() for name, parameter in model.named_parameters()
        }
        self._averages = list(self.average.values())

    def update(self, step: int) -> None:
        """average <- d average + (1 - d) weights, with d = ``decay_at(step)``; ``step`` counts from
        0."""
        if self._averages:
            weights = [parameter.data for parameter in self._parameters]
            torch._foreach_lerp_(self._averages, weights, 1.0 - decay_at(step, self.decay))

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The model holds the averaged weights inside the block. Storage is exchanged, nothing is
        copied."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    def exchange(self) -> None:
        """Let the weights and their average change places."""
        for parameter, average in zip(self._parameters, self._averages, strict=True):
            weights: Tensor = parameter.data
            parameter.data = average.data
            average.data = weights


def live_tensors(
    model: nn.Module, average: Average, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Weights, buffers, averaged weights and optimiser state by name; writing into them changes the
    run."""
    saved = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    parts: dict[str, Mapping[str, Tensor]] = {
        "model": {**weights, **buffers},
        "ema": average.average,
        "optimizer": named_state(optimizer, model),
    }
    return {
        f"{part}.{name}": tensor
        for part, tensors in parts.items()
        for name, tensor in tensors.items()
    }


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies, on the same device."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def put_back(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Write ``values`` into the live ``tensors`` of the same names."""
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(values[name])


class DivergenceWatch:
    """Collects losses and gradient norms without waiting for the device; :meth:`verdict` waits once
    and judges them all.

    NaN and inf survive summation, so a sum over the steps since the last verdict is enough.
    """

    def __init__(self) -> None:
        self._loss: Tensor | None = None
        self._norm: Tensor | None = None
        self._count = 0
        self.recent: float | None = None
        """Mean training objective of recent steps."""

    def see(self, loss: Tensor, norm: Tensor) -> None:
        """Take note of one step."""
        self._loss = loss if self._loss is None else self._loss + loss
        self._norm = norm if self._norm is None else self._norm + norm
        self._count += 1

    def verdict(self, step: int) -> str | None:
        """Why the steps since the last verdict, which end at ``step``, mean divergence; None if
        they do not."""
        if self._loss is None or self._norm is None:
            return None
        loss, norm = torch.stack((self._loss.double(), self._norm.double())).tolist()
        count = self._count
        self.forget()
        where = f"at step {step}" if count == 1 else f"in steps {step - count + 1} to {step}"
        if not math.isfinite(loss):
            return f"the loss is {loss} {where}"
        if not math.isfinite(norm):
            return f"the gradient norm is {norm} {where}"
        self.recent = (
            loss / count
            if self.recent is None
            else self.recent + 0.1 * (loss / count - self.recent)
        )
        return None

    def forget(self) -> None:
        """Drop what was seen since the last verdict."""
        self._loss = self._norm = None
        self._count = 0


def divergence_of(measurement: Measurement, step: int) -> str | None:
    """Why an evaluation after ``step`` steps means divergence; None if it does not."""
    parts = ("objective", "total", "twirled", "equivariance")
    errors = {f"error of the {name}": value for name, value in measurement.errors.items()}
    for name, value in {**{part: getattr(measurement, part) for part in parts}, **errors}.items():
        if value is not None and not math.isfinite(value):
            return f"the evaluation's {name} is {value} after {step} steps"
    return None
