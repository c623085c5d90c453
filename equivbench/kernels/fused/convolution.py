"""The fused convolution as a differentiable torch operator, for eager mode, torch.func and
torch.compile alike.

With S = sum over edges, paths and channels of C x_j Y_ij w_ij g_i, linear in each of its four
arguments, the output is dS/dg, the first derivatives are dS/dx, dS/dY and dS/dw, and the second
ones are sums of the same terms with one argument replaced by its cotangent. Three kernels do all of
it, each in one pass over the edges: no intermediate has an edge's size. One operator stands for
them, so that each order is differentiated by the next. It holds no state: an operation goes in as
plain numbers, and the edges are grouped by centre anew in each call, which costs about a hundredth
of it and leaves no cache that could go stale.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._functorch.autograd_function import enable_single_level_autograd_function  # type: ignore[attr-defined]
from torch.library import Library

from equivbench.kernels.fused import native, triton_launch
from equivbench.kernels.operations import Convolution

_SCHEMA = (
    "fused_convolution(bool[] needs, Tensor? grad, Tensor? by_x, Tensor? by_harmonics,"
    " Tensor? by_weights, Tensor x, Tensor harmonics, Tensor weights, Tensor edge_index,"
    " int[] channels, int edge_lmax, int target_lmax, bool parity)"
    " -> (Tensor, Tensor, Tensor, Tensor)"
)
"""The derivatives by g, x, harmonics and weights, an empty tensor for each that ``needs`` does not
ask: of S without ``grad``, which only the one by g can do without; of the sum of <by_..., first
derivative> where one of these is given."""


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
        [True, False, False, False],
        *[None] * 4,
        x,
        harmonics,
        weights,
        edge_index,
        list(operation.channels),
        operation.edge_lmax,
        operation.target_lmax,
        operation.parity,
    )[0]
    return output


_operation = lru_cache(maxsize=256)(Convolution)


def _check(
    operation: Convolution, x: Tensor, harmonics: Tensor, weights: Tensor, edge_index: Tensor
) -> None:
    """Raise ``ValueError`` where a kernel would read past the end of a tensor or take it for
    another type."""
    stated = operation.arguments({"nodes": x.shape[0], "edges": edge_index.shape[-1]})
    given = (x, harmonics, weights, edge_index)
    for (name, one), tensor in zip(stated.items(), given, strict=True):
        if tensor.shape != one.shape:
            raise ValueError(
                f"{name} of the convolution is {list(tensor.shape)}; it must be {list(one.shape)}"
            )
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


def _run(
    needs: list[bool], grad: Tensor | None, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    tangents, inputs, (channels, *description) = arguments[:3], arguments[3:7], arguments[7:]
    operation = _operation(tuple(channels), *description)
    _check(operation, *inputs)
    launch = triton_launch.launch if inputs[0].is_cuda else native.launch
    return launch(operation, needs, grad, tangents, *inputs)


def _fake(needs: list[bool], *arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What torch.compile traces in place of the operator: shapes only."""
    channels, *description = arguments[8:]
    return native.results(_operation(tuple(channels), *description), needs, *arguments[4:7])


def _save(ctx: Any, inputs: tuple[Any, ...]) -> None:
    # Gradients that nobody asks for stay None rather than zeros of an edge tensor's size.
    ctx.set_materialize_grads(False)
    ctx.given, ctx.description = inputs[0], inputs[9:]
    ctx.save_for_backward(*inputs[1:9])


def _differentiate(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
    """The next order, by each input of the operator but ``needs``."""
    grad, *tangents, x, harmonics, weights, edge_index = ctx.saved_tensors
    if any(one is not None for one in tangents):
        # Without this torch would leave the third derivatives out with no more than a warning.
        raise NotImplementedError(
            "the fused convolution has first and second derivatives only;"
            " use the torch backend for third ones"
        )
    given = [one if needed else None for needed, one in zip(ctx.given, cotangents, strict=True)]
    if all(one is None for one in given):
        return (None,) * 12
    # After the keys of the dispatcher and ``needs``.
    by_grad, _, _, _, *by_inputs = ctx.needs_input_grad[2:9]
    wanted = [by_grad, *by_inputs]
    found = torch.ops.equivbench.fused_convolution(
        wanted,
        *((given[0], None, None, None) if grad is None else (grad, *given[1:])),
        x,
        harmonics,
        weights,
        edge_index,
        *ctx.description,
    )
    first, *others = (one if needed else None for needed, one in zip(wanted, found, strict=True))
    return first, None, None, None, *others, *[None] * 5


# How the operator is differentiated in a way that torch.func's transforms take too.
# ``torch.library.register_autograd`` does the same, and is not used because torch.func.grad refuses
# what it makes, compiled or not. That refusal guards functions which call torch's own operators in
# their forward pass. Here the forward pass only hands the operator on below autograd, as torch's
# own operators do, so that each level of torch.func records one node and passes the operator to the
# next level.


def _hand_on(keys: Any, arguments: tuple[Any, ...]) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.equivbench.fused_convolution.default.redispatch(
            keys & torch._C._after_autograd_keyset, *arguments
        )


class _Node(torch.autograd.function._SingleLevelFunction):
    @staticmethod
    def forward(ctx: Any, keys: Any, *arguments: Any) -> Any:
        # A node's forward pass runs without gradients, which the next level of torch.func may still
        # want.
        with torch.enable_grad():
            output = _hand_on(keys, arguments)
        _save(ctx, arguments)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return None, None, *_differentiate(ctx, *grads)


def _recorded(keys: Any, *arguments: Any) -> Any:
    if torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments):
        with enable_single_level_autograd_function():
            return _Node.apply(keys, *arguments)  # type: ignore[attr-defined]
    return _hand_on(keys, arguments)


_LIBRARY = Library("equivbench", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(_SCHEMA)  # type: ignore[no-untyped-call]
_LIBRARY.impl("fused_convolution", _run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
_LIBRARY.impl("fused_convolution", _recorded, "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]
torch.library.register_fake("equivbench::fused_convolution", _fake, lib=_LIBRARY)
