"""The values and derivatives of an operation, for tests that hold one against another, and inputs
that a compiled operator must refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from equivbench.kernels.backends import fused
from equivbench.kernels.checking import WrongKernelError
from equivbench.kernels.fused.coupling import EdgeOperation
from equivbench.kernels.operations import EdgeProduct, SO2Message

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


def edge_inputs(
    operation: EdgeOperation | EdgeProduct | SO2Message,
    nodes: int = 6,
    edges: int = 25,
    dtype: torch.dtype = torch.float64,
) -> Inputs:
    """Random inputs with unsorted edges, repeated ones among them; the last node has none."""
    generator = torch.Generator().manual_seed(nodes + edges)

    def normal(*shape: int) -> Tensor:
        return (
            torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()
        )

    stated = operation.arguments({"nodes": nodes, "edges": edges})
    edge_index = torch.randint(0, max(1, nodes - 1), (2, edges), generator=generator)
    numbers = {name: normal(*one.shape) for name, one in stated.items() if not one.index}
    return {**numbers, "edge_index": edge_index}


def assert_refused_while_wrong(
    build: Callable[[], object],
    made_by: tuple[ModuleType, str, Any],
    change: tuple[str, str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``build`` refuses the library whose text, as the function of that name in the module makes
    it, has the ``change``, and takes the right one afterwards; last in ``made_by`` is the cache of
    compiled libraries."""
    module, name, compiled = made_by
    right = getattr(module, name)
    caches = compiled, fused._compiled_and_checked

    def wrong(*given: Any) -> str:
        text: str = right(*given)
        assert change[0] in text
        return text.replace(*change)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, wrong)
        for cache in caches:
            cache.cache_clear()
        with pytest.raises(WrongKernelError, match=says):
            build()
    for cache in caches:
        cache.cache_clear()
    build()
