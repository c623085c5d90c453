"""The fused symmetric contraction as one differentiable torch operator, for eager mode, torch.func
and torch.compile alike.

With S = sum over nodes, rows and channels of g_i P(x_i, c(z_i)), where the coefficients c are
combinations of an element's weights, the output is dS/dg and the first derivatives are dS/dx and
dS/dw. Second ones are first ones along tangents, which Horner's rule gives beside the values.
Nothing of a node's size is stored but inputs and results, and the coefficients of an element are
computed once for all of its nodes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from equivbench.kernels.fused import native_contraction, triton_contraction
from equivbench.kernels.fused.arguments import check_arguments
from equivbench.kernels.fused.derivatives import FusedCall, FusedOperator
from equivbench.kernels.fused.registration import register
from equivbench.kernels.operations import SymmetricContraction

CORRELATION = 3
"""Most factors: of a fourth degree forward mode would need a kernel of its own."""

_SCHEMA = (
    "(bool[] needs, Tensor? grad, Tensor? by_x, Tensor? by_weights, Tensor x, Tensor weights,"
    " Tensor elements, str name, int[] numbers) -> (Tensor, Tensor, Tensor)"
)


def contracted(
    operation: SymmetricContraction, x: Tensor, weights: Tensor, elements: Tensor
) -> Tensor:
    """What the docstring of ``operation`` says: [nodes, target_size], twice differentiable by ``x``
    and ``weights``, in reverse and in forward mode.

    Float32 or float64, both of the same type; under autocast float32. Raises ``ValueError`` for
    tensors of other shapes, types or devices, ``NotImplementedError`` for a third derivative and,
    on a CPU, ``IndexError`` for an element that has no weights. Results are the same bits at any
    number of threads.
    """
    output: Tensor = torch.ops.equivbench.fused_contraction(
        [True, False, False],
        *[None] * 3,
        x,
        weights,
        elements,
        operation.name,
        [operation.channels, operation.lmax, operation.target_lmax, operation.correlation],
    )[0]
    return output


@lru_cache(maxsize=256)
def _operation(name: str, numbers: tuple[int, ...]) -> SymmetricContraction:
    """The operation ``name`` with these fields; raises ``ValueError`` where there is none."""
    if name == SymmetricContraction.name and len(numbers) == 4:
        channels, lmax, target_lmax, correlation = numbers
        if channels > 0 and min(lmax, target_lmax) >= 0 and 1 <= correlation <= CORRELATION:
            return SymmetricContraction(channels, lmax, target_lmax, correlation)
    raise ValueError(f"there is no fused {name} of the numbers {list(numbers)}")


def _described(call: FusedCall) -> SymmetricContraction:
    name, numbers = call.description
    return _operation(name, tuple(numbers))


def _run(*arguments: Any) -> tuple[Tensor, ...]:
    call = FusedCall.of(_OPERATOR, arguments)
    operation = _described(call)
    x, weights = call.inputs
    nodes, elements = x.shape[:1].numel(), weights.shape[:1].numel()
    inputs = {
        "x": (nodes, operation.source_size),
        "weights": (elements, operation.weight_size),
    }
    check_arguments(call, inputs, (nodes, operation.target_size), ("elements", (nodes,)))
    launch = triton_contraction.launch if x.is_cuda else native_contraction.launch
    return launch(operation, call.needs, call.grad, call.tangents, x, weights, call.indices)


def _fake(*arguments: Any) -> tuple[Tensor, ...]:
    """What torch.compile traces in place of the operator: shapes only."""
    call = FusedCall.of(_OPERATOR, arguments)
    return native_contraction.results(_described(call), call.needs, *call.inputs)


_OPERATOR = FusedOperator("fused_contraction", _run, _fake, indexed=1, cubic=0)
register(_OPERATOR, _SCHEMA)
