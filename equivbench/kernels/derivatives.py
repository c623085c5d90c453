"""What one call of a mode is: the forward pass, with gradients, with gradients of these; the same
for every backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from equivbench.records.kernels import Mode

Tensors = Mapping[str, Tensor]
Results = dict[str, Tensor | None]
"""``output``; from ``backward`` on ``gradient NAME``; in ``double_backward`` also ``second NAME``
and ``second cotangent``. None where autograd has none."""
COTANGENT = "cotangent"


@dataclass(frozen=True)
class Arguments:
    """What a call of a mode is given."""

    inputs: Tensors
    cotangent: Tensor | None = None
    """Of the output's shape: the gradient that arrives from above. Not needed by ``forward``."""
    directions: Tensors | None = None
    """For each differentiable input, of its shape: the gradient that arrives at its gradient. For
    ``double_backward`` only."""


def evaluate(
    run: Callable[[Tensors], Tensor],
    mode: Mode,
    arguments: Arguments,
    differentiable: tuple[str, ...],
) -> Results:
    """One call of ``run`` in ``mode``, by torch's autograd alone.

    The differentiable inputs, and in ``double_backward`` the cotangent, must require gradients. A
    derivative that autograd does not connect is None.
    """
    if mode == "forward":
        with torch.no_grad():
            return {"output": run(arguments.inputs)}
    output = run(arguments.inputs)
    by = [arguments.inputs[name] for name in differentiable]
    assert arguments.cotangent is not None
    if not output.requires_grad:
        return {"output": output, **{f"gradient {name}": None for name in differentiable}}
    twice = mode == "double_backward"
    gradients = torch.autograd.grad(
        output, by, arguments.cotangent, create_graph=twice, allow_unused=True
    )
    results: Results = {"output": output}
    results |= {
        f"gradient {name}": gradient
        for name, gradient in zip(differentiable, gradients, strict=True)
    }
    if not twice:
        return results
    assert arguments.directions is not None
    connected = [
        (gradient, arguments.directions[name])
        for name, gradient in zip(differentiable, gradients, strict=True)
        if gradient is not None and gradient.requires_grad
    ]
    names = [*differentiable, COTANGENT]
    seconds: tuple[Tensor | None, ...] = (None,) * len(names)
    if connected:
        targets, directions = zip(*connected, strict=True)
        seconds = torch.autograd.grad(
            targets, [*by, arguments.cotangent], directions, allow_unused=True
        )
    return results | {f"second {name}": second for name, second in zip(names, seconds, strict=True)}
