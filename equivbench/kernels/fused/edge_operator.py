"""The fused operations along edges as one differentiable torch operator, for eager mode, torch.func
and torch.compile alike.

With S = sum over edges, paths and channels of C x_j Y_ij w_ij g_i, linear in each of its four
arguments, the output is dS/dg, the first derivatives are dS/dx, dS/dY and dS/dw, and the second
ones are sums of the same terms with one argument replaced by its cotangent. Three kernels do all of
it, each in one pass over the edges: no intermediate has an edge's size. One operator stands for
them, so that each order is differentiated by the next
(:mod:`equivbench.kernels.fused.derivatives`). It holds no state: an operation goes in as its name
and plain numbers, and the edges are grouped by centre anew in each call, which costs about a
hundredth of a convolution and leaves no cache that could go stale.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from equivbench.kernels.fused import native, triton_launch
from equivbench.kernels.fused.arguments import check_arguments
from equivbench.kernels.fused.coupling import EdgeOperation, couplings
from equivbench.kernels.fused.derivatives import FusedCall, FusedOperator
from equivbench.kernels.fused.registration import register
from equivbench.kernels.operations import Convolution, PaiNNMessage

_SCHEMA = (
    "(bool[] needs, Tensor? grad, Tensor? by_x, Tensor? by_harmonics,"
    " Tensor? by_weights, Tensor x, Tensor harmonics, Tensor weights, Tensor edge_index,"
    " str name, int[] numbers)"
    " -> (Tensor, Tensor, Tensor, Tensor)"
)


def along_edges(
    operation: EdgeOperation, x: Tensor, harmonics: Tensor, weights: Tensor, edge_index: Tensor
) -> Tensor:
    """What the docstring of ``operation`` says: [nodes, target_size], twice differentiable by its
    three inputs, in reverse and in forward mode.

    The ``harmonics`` [edges, 4] of :class:`PaiNNMessage` are 1 and the direction. Float32 or
    float64, all three of the same type; under autocast float32. Raises ``ValueError`` for tensors
    of other shapes, types or devices, ``NotImplementedError`` for a third derivative and, on a CPU,
    ``IndexError`` for an edge to a node that is not there. Results are the same bits at the same
    number of threads.
    """
    output: Tensor = torch.ops.equivbench.fused_along_edges(
        [True, False, False, False],
        *[None] * 4,
        x,
        harmonics,
        weights,
        edge_index,
        operation.name,
        _numbers(operation),
    )[0]
    return output


def _numbers(operation: EdgeOperation) -> list[int]:
    """The fields of ``operation``, in their order."""
    if isinstance(operation, PaiNNMessage):
        return [operation.channels, int(operation.vectors)]
    degrees = [operation.edge_lmax, operation.target_lmax, int(operation.parity)]
    return [*operation.channels, *degrees]


@lru_cache(maxsize=256)
def _operation(name: str, numbers: tuple[int, ...]) -> EdgeOperation:
    """The operation ``name`` with these fields; raises ``ValueError`` where there is none."""
    if name == PaiNNMessage.name and len(numbers) == 2:
        channels, vectors = numbers
        if channels > 0 and vectors in (0, 1):
            return PaiNNMessage(channels, bool(vectors))
    if name == Convolution.name and len(numbers) > 3:
        *counts, edge_lmax, target_lmax, parity = numbers
        if min(counts) > 0 and min(edge_lmax, target_lmax) >= 0 and parity in (0, 1):
            return Convolution(tuple(counts), edge_lmax, target_lmax, bool(parity))
    raise ValueError(f"there is no fused {name} of the numbers {list(numbers)}")


@lru_cache(maxsize=256)
def _widths(operation: EdgeOperation) -> tuple[int, ...]:
    """Columns of x, harmonics, weights and the output."""
    harmonics = couplings(operation).harmonics_size
    return operation.source_size, harmonics, operation.weight_size, operation.target_size


def _check(operation: EdgeOperation, call: FusedCall) -> None:
    nodes, edges = call.inputs[0].shape[:1].numel(), call.indices.shape[-1:].numel()
    source, harmonics, weights, target = _widths(operation)
    inputs = {"x": (nodes, source), "harmonics": (edges, harmonics), "weights": (edges, weights)}
    check_arguments(call, inputs, (nodes, target), ("edge_index", (2, edges)))


def _described(call: FusedCall) -> EdgeOperation:
    name, numbers = call.description
    return _operation(name, tuple(numbers))


def _run(*arguments: Any) -> tuple[Tensor, ...]:
    call = FusedCall.of(_OPERATOR, arguments)
    operation = _described(call)
    _check(operation, call)
    x, harmonics, weights = call.inputs
    launch = triton_launch.launch if x.is_cuda else native.launch
    return launch(
        operation, call.needs, call.grad, call.tangents, x, harmonics, weights, call.indices
    )


def _fake(*arguments: Any) -> tuple[Tensor, ...]:
    """What torch.compile traces in place of the operator: shapes only."""
    call = FusedCall.of(_OPERATOR, arguments)
    return native.results(_described(call), call.needs, *call.inputs)


_OPERATOR = FusedOperator("fused_along_edges", _run, _fake)
register(_OPERATOR, _SCHEMA)
