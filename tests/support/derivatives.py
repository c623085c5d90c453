"""The values and derivatives of an operation, for tests that hold one against another, and inputs
that a compiled operator must refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Inputs = dict[str, Tensor]
SPOILT: Mapping[str, Callable[[Tensor], Tensor]] = {
    "a row less": lambda one: one[1:],
    "a column less": lambda one: one[:, 1:],
    "no rows": lambda one: one[:0],
    "one dimension": lambda one: one.flatten(),
    "none at all": lambda one: one.sum(),
    "another precision": lambda one: one.float(),
    "whole numbers": lambda one: one.int(),
    "sparse": lambda one: one.to_sparse(),
}


def derivatives(function: Any, inputs: Inputs) -> list[Tensor]:
    """The output, its gradients by the inputs that require them, and second gradients by these and
    the cotangent, for fixed random cotangents."""
    generator = torch.Generator().manual_seed(0)

    def like(one: Tensor) -> Tensor:
        return torch.randn(one.shape, dtype=torch.float64, generator=generator).to(one.dtype)

    output = function(**inputs)
    cotangent = like(output).requires_grad_()
    chosen = [one for one in inputs.values() if one.requires_grad]
    first = torch.autograd.grad(output, chosen, cotangent, create_graph=True)
    second = torch.autograd.grad(
        first, [cotangent, *chosen], [like(one) for one in first], materialize_grads=True
    )
    return [output.detach(), *(one.detach() for one in (*first, *second))]


def assert_close(found: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert float((one - other).norm()) <= tolerance * float(other.norm())
