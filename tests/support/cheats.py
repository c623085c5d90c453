"""Networks that do what real ones do, and networks that cheat: each wraps an honest one and does
one thing more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Act = Callable[[dict[str, Tensor]], None]
"""What is done with the inputs before the honest network sees them."""
Twist = Callable[[Tensor], Any]
"""What is made of the honest prediction."""


class Doing(nn.Module):
    """``model``, before which ``act`` is called with the inputs and after which ``twist`` makes
    something else of the output ``name``."""

    def __init__(
        self,
        model: nn.Module,
        name: str,
        act: Act = lambda inputs: None,
        twist: Twist = lambda output: output,
    ) -> None:
        super().__init__()
        self.model, self.name, self.act, self.twist = model, name, act, twist

    def forward(self, **inputs: Tensor) -> Mapping[str, Any]:
        self.act(inputs)
        outputs = self.model(**inputs)
        return {**outputs, self.name: self.twist(outputs[self.name])}


class Gradient(nn.Module):
    """Forces as many published networks make them: ``torch.autograd.grad`` of an energy by the
    input ``name``, which is marked in place."""

    def __init__(self, energy: Callable[..., Tensor], name: str, output: str) -> None:
        super().__init__()
        self.energy, self.name, self.output = energy, name, output

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        at = inputs[self.name].requires_grad_(True)
        total = self.energy(**inputs).sum()
        (slope,) = torch.autograd.grad(total, at, create_graph=self.training)
        return {self.output: -slope}


def more_threads(_: dict[str, Tensor]) -> None:
    torch.set_num_threads(torch.get_num_threads() + 1)


def other_dtype(_: dict[str, Tensor]) -> None:
    torch.set_default_dtype(torch.float64)


def no_gradients(_: dict[str, Tensor]) -> None:
    torch.set_grad_enabled(False)


def coarse_products(_: dict[str, Tensor]) -> None:
    torch.set_float32_matmul_precision("medium")


def deterministic(_: dict[str, Tensor]) -> None:
    torch.use_deterministic_algorithms(True)


SETTINGS: dict[str, Act] = {
    "number of threads": more_threads,
    "default dtype": other_dtype,
    "gradients are computed": no_gradients,
    "precision of matrix products": coarse_products,
    "deterministic": deterministic,
}
"""Acts that change a setting of the process, by the words that a refusal names them with."""

OUTPUTS: dict[str, Twist] = {
    "a list, not": lambda output: output.tolist(),
    "has shape": lambda output: output[..., :1],
    "floating-point": lambda output: output.to(torch.int64),
    "complex": lambda output: output.to(torch.complex64),
    "is on meta": lambda output: output.to("meta"),
}
"""What is no prediction, by the words of the refusal: each would be cast, broadcast or lost."""
