"""The fused convolution as differentiable torch operators, for eager mode, torch.func and
torch.compile alike.

With S = sum over edges, paths and channels of C x_j Y_ij w_ij g_i, linear in each of its four
arguments, the output is dS/dg, the first derivatives are dS/dx, dS/dY and dS/dw, and the second
ones are sums of the same terms with one argument replaced by its cotangent. Three kernels do all of
it, each in one pass over the edges: no intermediate has an edge's size. The operators hold no
state: an operation goes in as plain numbers, and the edges are grouped by centre anew in each call,
which costs about a hundredth of it and leaves no cache that could go stale.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.library import Library

from equivbench.kernels.fused.differentiable import differentiable
from equivbench.kernels.operations import Convolution

_SCHEMA = "int[] channels, int edge_lmax, int target_lmax, bool parity"
"""A :class:`Convolution` in the types that an operator's schema knows."""
_INPUTS = f"Tensor x, Tensor harmonics, Tensor weights, Tensor edge_index, {_SCHEMA}"

FORWARD = "fused_convolution"
BACKWARD = "fused_convolution_backward"
DOUBLE_BACKWARD = "fused_convolution_double_backward"


def convolve(
    operation: Convolution, x: Tensor, harmonics: Tensor, weights: Tensor, edge_index: Tensor
) -> Tensor:
    """The convolution of :class:`Convolution`'s docstring: [nodes, target_size], twice
    differentiable by its three inputs.

    Float32 or float64, all three of the same type. Raises ``ValueError`` for tensors of other
    shapes and, on a CPU, ``IndexError`` for an edge to a node that is not there. Results are the
    same bits at the same number of threads.
    """
    output: Tensor = torch.ops.equivbench.fused_convolution(
        x,
        harmonics,
        weights,
        edge_index,
        list(operation.channels),
        operation.edge_lmax,
        operation.target_lmax,
        operation.parity,
    )
    return output


@lru_cache(maxsize=256)
def _operation(
    channels: tuple[int, ...], edge_lmax: int, target_lmax: int, parity: bool
) -> Convolution:
    return Convolution(channels, edge_lmax, target_lmax, parity)


def _parsed(arguments: tuple[Any, ...]) -> tuple[Convolution, tuple[Tensor, ...]]:
    """The operation, and x, harmonics, weights and edge_index, from an operator's arguments after
    those of its own."""
    channels, *description = arguments[4:]
    return _operation(tuple(channels), *description), arguments[:4]


def _check(
    operation: Convolution, x: Tensor, harmonics: Tensor, weights: Tensor, edge_index: Tensor
) -> None:
    """Raise ``ValueError`` where a kernel would read past the end of a tensor or take it for
    another type."""
    operation.check_shapes(x, harmonics, weights, edge_index)
    if edge_index.dtype != torch.int64:
        raise ValueError(
            f"edge_index of the convolution is {edge_index.dtype}; it must be torch.int64"
        )
    if (
        x.dtype not in (torch.float32, torch.float64)
        or not x.dtype == harmonics.dtype == weights.dtype
    ):
        found = f"{x.dtype}, {harmonics.dtype} and {weights.dtype}"
        raise ValueError(
            f"x, harmonics and weights of the convolution are {found};"
            " all must be torch.float32 or torch.float64"
        )


def _launcher(x: Tensor) -> Any:
    # Imported here: Triton is optional, and each of the two is needed on its own device only.
    if x.is_cuda:
        from equivbench.kernels.fused import triton_launch

        return triton_launch
    from equivbench.kernels.fused import native_launch

    return native_launch


def _forward(*arguments: Any) -> Tensor:
    operation, inputs = _parsed(arguments)
    _check(operation, *inputs)
    output: Tensor = _launcher(inputs[0]).launch_forward(operation, *inputs)
    return output


def _backward(needs: list[bool], grad: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    operation, inputs = _parsed(arguments)
    gradients: tuple[Tensor, Tensor, Tensor] = _launcher(grad).launch_backward(
        operation, tuple(needs), grad, *inputs
    )
    return gradients


def _double_backward(
    needs: list[bool],
    by_x: Tensor | None,
    by_harmonics: Tensor | None,
    by_weights: Tensor | None,
    grad: Tensor,
    *arguments: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    operation, inputs = _parsed(arguments)
    gradients: tuple[Tensor, Tensor, Tensor, Tensor] = _launcher(grad).launch_double_backward(
        operation, tuple(needs), (by_x, by_harmonics, by_weights), grad, *inputs
    )
    return gradients


# What torch.compile traces in place of the operators: shapes only.


def _forward_fake(*arguments: Any) -> Tensor:
    operation, (x, *_) = _parsed(arguments)
    return x.new_empty(x.shape[0], operation.target_size)


def _backward_fake(needs: list[bool], grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    return _empty_like(needs, arguments[:3])


def _double_backward_fake(
    needs: list[bool],
    by_x: Tensor | None,
    by_harmonics: Tensor | None,
    by_weights: Tensor | None,
    grad: Tensor,
    *arguments: Any,
) -> tuple[Tensor, ...]:
    return _empty_like(needs, (grad, *arguments[:3]))


def _empty_like(needs: list[bool], tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What the kernels return: a contiguous tensor for each gradient that is needed and an empty
    one for the others."""
    return tuple(
        one.new_empty(one.shape) if needed else one.new_empty(0)
        for needed, one in zip(needs, tensors, strict=True)
    )


# How the operators are differentiated: each by the next one.


def _kept(needs: list[bool], gradients: tuple[Tensor, ...]) -> list[Tensor | None]:
    return [one if needed else None for needed, one in zip(needs, gradients, strict=True)]


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.description = inputs[4:]


def _differentiate_forward(ctx: Any, needs: tuple[bool, ...], grad: Tensor) -> tuple[Any, ...]:
    wanted = list(needs[:3])
    gradients = torch.ops.equivbench.fused_convolution_backward(
        wanted, grad, *ctx.saved_tensors, *ctx.description
    )
    return *_kept(wanted, gradients), *[None] * 5


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    # Gradients that nobody asks for stay None rather than zeros of an edge tensor's size.
    ctx.set_materialize_grads(False)
    ctx.given = inputs[0]
    ctx.save_for_backward(*inputs[1:6])
    ctx.description = inputs[6:]


def _differentiate_backward(
    ctx: Any, needs: tuple[bool, ...], *cotangents: Tensor | None
) -> tuple[Any, ...]:
    wanted = list(needs[1:5])
    given = [one if needed else None for needed, one in zip(ctx.given, cotangents, strict=True)]
    gradients = torch.ops.equivbench.fused_convolution_double_backward(
        wanted, *given, *ctx.saved_tensors, *ctx.description
    )
    return None, *_kept(wanted, gradients), *[None] * 5


def _save_nothing(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    pass


def _differentiate_double_backward(
    ctx: Any, needs: tuple[bool, ...], *cotangents: Tensor
) -> tuple[Any, ...]:
    # Without this torch would leave the third derivatives out with no more than a warning.
    raise NotImplementedError(
        "the fused convolution has first and second derivatives only;"
        " use the torch backend for third ones"
    )


_LIBRARY = Library("equivbench", "FRAGMENT")  # type: ignore[no-untyped-call]
_COTANGENTS = "Tensor? by_x, Tensor? by_harmonics, Tensor? by_weights"
_THREE, _FOUR = "(Tensor, Tensor, Tensor)", "(Tensor, Tensor, Tensor, Tensor)"
for _name, _schema, _kernel, _fake in (
    (FORWARD, f"({_INPUTS}) -> Tensor", _forward, _forward_fake),
    (BACKWARD, f"(bool[] needs, Tensor grad, {_INPUTS}) -> {_THREE}", _backward, _backward_fake),
    (
        DOUBLE_BACKWARD,
        f"(bool[] needs, {_COTANGENTS}, Tensor grad, {_INPUTS}) -> {_FOUR}",
        _double_backward,
        _double_backward_fake,
    ),
):
    _LIBRARY.define(f"{_name}{_schema}")  # type: ignore[no-untyped-call]
    _LIBRARY.impl(_name, _kernel, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"equivbench::{_name}", _fake, lib=_LIBRARY)
differentiable(_LIBRARY, FORWARD, _save_forward, _differentiate_forward)
differentiable(_LIBRARY, BACKWARD, _save_backward, _differentiate_backward)
differentiable(_LIBRARY, DOUBLE_BACKWARD, _save_nothing, _differentiate_double_backward)
