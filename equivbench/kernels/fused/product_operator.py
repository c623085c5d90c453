"""Allegro's edge product as one differentiable torch operator, for eager mode, torch.func and
torch.compile alike.

With S = sum over edges and channels of g_e M_i(e) x_e, where the matrix M of a centre is linear in
the weights and in its environment, which is linear in the harmonics and in their factors, the
output is dS/dg and everything else follows as for the operations along edges
(:mod:`equivbench.kernels.fused.edge_operator`). A centre's edges are gone through once for its
environment, once for the products and once for the way back; no product is stored.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from equivbench.kernels.fused import native_product, triton_product
from equivbench.kernels.fused.arguments import check_arguments
from equivbench.kernels.fused.derivatives import FusedCall, FusedOperator
from equivbench.kernels.fused.registration import register
from equivbench.kernels.operations import EdgeProduct

_SCHEMA = (
    "(bool[] needs, Tensor? grad, Tensor? by_x, Tensor? by_harmonics, Tensor? by_environment,"
    " Tensor? by_weights, Tensor x, Tensor harmonics, Tensor environment, Tensor weights,"
    " Tensor edge_index, str name, int[] numbers)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def edge_product(
    operation: EdgeProduct,
    x: Tensor,
    harmonics: Tensor,
    environment: Tensor,
    weights: Tensor,
    edge_index: Tensor,
) -> Tensor:
    """What the docstring of ``operation`` says: [edges, (lmax + 1)^2 C], twice differentiable by
    its four inputs, in reverse and in forward mode.

    Float32 or float64, all four of the same type; under autocast float32. Raises ``ValueError`` for
    tensors of other shapes, types or devices, ``NotImplementedError`` for a third derivative and
    ``IndexError`` for a centre below 0. Results are the same bits at the same number of threads.
    """
    output: Tensor = torch.ops.equivbench.fused_edge_product(
        [True, False, False, False, False],
        *[None] * 5,
        x,
        harmonics,
        environment,
        weights,
        edge_index,
        operation.name,
        [operation.channels, operation.lmax],
    )[0]
    return output


@lru_cache(maxsize=256)
def _operation(name: str, numbers: tuple[int, ...]) -> EdgeProduct:
    """The operation ``name`` with these fields; raises ``ValueError`` where there is none."""
    if name == EdgeProduct.name and len(numbers) == 2 and numbers[0] > 0 and numbers[1] >= 0:
        return EdgeProduct(*numbers)
    raise ValueError(f"there is no fused {name} of the numbers {list(numbers)}")


def _described(call: FusedCall) -> EdgeProduct:
    name, numbers = call.description
    return _operation(name, tuple(numbers))


def _run(*arguments: Any) -> tuple[Tensor, ...]:
    call = FusedCall.of(_OPERATOR, arguments)
    operation = _described(call)
    edges, channels, degrees = (
        call.indices.shape[-1:].numel(),
        operation.channels,
        operation.lmax + 1,
    )
    features = edges, degrees**2 * channels
    inputs = {
        "x": features,
        "harmonics": (edges, degrees**2),
        "environment": (edges, degrees * channels),
        "weights": (len(operation.paths), channels),
    }
    check_arguments(call, inputs, features, ("edge_index", (2, edges)))
    launch = triton_product.launch if call.indices.is_cuda else native_product.launch
    return launch(operation, call.needs, call.grad, call.tangents, call.inputs, call.indices)


def _fake(*arguments: Any) -> tuple[Tensor, ...]:
    """What torch.compile traces in place of the operator: shapes only."""
    call = FusedCall.of(_OPERATOR, arguments)
    return native_product.results(call.needs, *call.inputs)


# Each call has weights of its own, for all of its edges: a batch of them is no one call.
_OPERATOR = FusedOperator("fused_edge_product", _run, _fake, indexed=None)
register(_OPERATOR, _SCHEMA)
