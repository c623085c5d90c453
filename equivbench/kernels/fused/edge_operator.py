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
from torch._functorch.autograd_function import enable_single_level_autograd_function  # type: ignore[attr-defined]
from torch.autograd import forward_ad
from torch.library import Library

from equivbench.kernels.fused import native, triton_launch
from equivbench.kernels.fused.coupling import EdgeOperation, couplings
from equivbench.kernels.fused.derivatives import FusedCall, batched, pulled_back, pushed_forward
from equivbench.kernels.operations import Convolution, PaiNNMessage

_SCHEMA = (
    "fused_along_edges(bool[] needs, Tensor? grad, Tensor? by_x, Tensor? by_harmonics,"
    " Tensor? by_weights, Tensor x, Tensor harmonics, Tensor weights, Tensor edge_index,"
    " str name, int[] numbers)"
    " -> (Tensor, Tensor, Tensor, Tensor)"
)
"""The derivatives by g, x, harmonics and weights, an empty tensor for each that ``needs`` does not
ask: of S where no tangent ``by_...`` is given, else of the sum of <by_..., first derivative>. Only
the one by g, which is the output, or the output along the tangents, can do without ``grad``."""


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


_NAMES = ("x", "harmonics", "weights", "grad", "by_x", "by_harmonics", "by_weights", "edge_index")


@lru_cache(maxsize=256)
def _widths(operation: EdgeOperation) -> tuple[int, ...]:
    """Columns of x, harmonics, weights and the output."""
    harmonics = couplings(operation).harmonics_size
    return operation.source_size, harmonics, operation.weight_size, operation.target_size


def _check(operation: EdgeOperation, call: FusedCall) -> None:
    """Raise ``ValueError`` where a kernel would read past the end of a tensor, take it for another
    type, or be asked for what it does not compute."""
    x, edge_index = call.inputs[0], call.edge_index
    nodes, edges = x.shape[:1].numel(), edge_index.shape[-1:].numel()
    source, harmonics, weights, target = _widths(operation)
    inputs = (nodes, source), (edges, harmonics), (edges, weights)
    shapes = (*inputs, (nodes, target), *inputs, (2, edges))
    given = (*call.inputs, call.grad, *call.tangents, edge_index)
    dtype, device = x.dtype, x.device
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"x of the {operation.name} is {dtype}; it must be torch.float32 or torch.float64"
        )
    for name, tensor, shape in zip(_NAMES, given, shapes, strict=True):
        if tensor is None:
            continue
        if tensor.shape != shape:
            raise ValueError(
                f"{name} of the {operation.name} is {list(tensor.shape)}; it must be {list(shape)}"
            )
        wanted = torch.int64 if tensor is edge_index else dtype
        if tensor.dtype != wanted or tensor.device != device or tensor.layout is not torch.strided:
            raise ValueError(
                f"{name} of the {operation.name} is {tensor.dtype} on {tensor.device},"
                f" {tensor.layout}; beside an x that is {dtype} on {device} it must be"
                f" {wanted} on {device}, torch.strided"
            )
    along = any(one is not None for one in call.tangents)
    # Without grad only the output, plain or along tangents; with it the output along tangents only.
    absent = call.needs[1:] if call.grad is None else call.needs[:1] if not along else ()
    if len(call.needs) != 4 or any(absent):
        raise ValueError(
            f"the {operation.name} has no results {list(call.needs)}"
            f" {'without' if call.grad is None else 'with'} grad"
        )


def _described(call: FusedCall) -> EdgeOperation:
    name, numbers = call.description
    return _operation(name, tuple(numbers))


def _run(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    call = FusedCall.of(arguments)
    operation = _described(call)
    _check(operation, call)
    x, harmonics, weights = call.inputs
    launch = triton_launch.launch if x.is_cuda else native.launch
    return launch(
        operation, call.needs, call.grad, call.tangents, x, harmonics, weights, call.edge_index
    )


def _fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What torch.compile traces in place of the operator: shapes only."""
    call = FusedCall.of(arguments)
    return native.results(_described(call), call.needs, *call.inputs)


# How the operator is differentiated in a way that torch.func's transforms take too.
# ``torch.library.register_autograd`` does the same, and is not used because torch.func.grad refuses
# what it makes, compiled or not, and because it knows no forward mode. That refusal guards
# functions which call torch's own operators in their forward pass. Here the forward pass only hands
# the operator on below autograd, as torch's own operators do, so that each level of torch.func
# records one node and passes the operator to the next level.


def _hand_on(keys: Any, arguments: tuple[Any, ...]) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.equivbench.fused_along_edges.default.redispatch(
            keys & torch._C._after_autograd_keyset, *arguments
        )


class _Node(torch.autograd.function._SingleLevelFunction):
    @staticmethod
    def forward(ctx: Any, recorded: bool, keys: Any, *arguments: Any) -> Any:
        # A node's forward pass runs without derivatives, which the next level of torch.func may
        # still want.
        with torch.set_grad_enabled(recorded), forward_ad._set_fwd_grad_enabled(True):
            output = _hand_on(keys, arguments)
        # Gradients that nobody asks for stay None rather than zeros of an edge tensor's size.
        ctx.set_materialize_grads(False)
        ctx.needs, ctx.description = arguments[0], arguments[9:]
        ctx.save_for_backward(*arguments[1:9])
        ctx.save_for_forward(*arguments[1:9])
        return output

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        call = FusedCall.of((ctx.needs, *ctx.saved_tensors, *ctx.description))
        # Before the seven tensors stand two arguments of forward and ``needs``.
        found = pulled_back(call, ctx.needs_input_grad[3:10], cotangents)
        return None, None, None, *found, None, *[None] * len(ctx.description)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        # What is saved carries its tangents, which are not to be followed a second time.
        values = [_value(one) for one in ctx.saved_tensors]
        call = FusedCall.of((ctx.needs, *values, *ctx.description))
        with forward_ad._set_fwd_grad_enabled(True):
            moved = pushed_forward(call, FusedCall.of(tangents[2:]))
        shaped = zip(moved, _fake(ctx.needs, *values, *ctx.description), strict=True)
        return tuple(torch.zeros_like(like) if one is None else one for one, like in shaped)


def _value(one: Tensor | None) -> Tensor | None:
    if one is None or not one.is_floating_point():
        return one
    value: Tensor = forward_ad.unpack_dual(one, level=0).primal  # type: ignore[no-untyped-call]
    return value


def _recorded(keys: Any, *arguments: Any) -> Any:
    recorded = torch.is_grad_enabled()
    # Tangents of forward mode exist within these two only.
    pushed = (
        forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None
    )
    if pushed or (recorded and torch._C._any_requires_grad(*arguments)):
        with enable_single_level_autograd_function():
            return _Node.apply(recorded, keys, *arguments)  # type: ignore[attr-defined]
    return _hand_on(keys, arguments)


_LIBRARY = Library("equivbench", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(_SCHEMA)  # type: ignore[no-untyped-call]
_LIBRARY.impl("fused_along_edges", _run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
_LIBRARY.impl("fused_along_edges", _recorded, "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]
torch.library.register_fake("equivbench::fused_along_edges", _fake, lib=_LIBRARY)
torch.library.register_vmap("equivbench::fused_along_edges", batched, lib=_LIBRARY)
# Networks in bfloat16 keep it to their invariant parts.
for _device in ("cpu", "cuda"):
    torch.library.register_autocast(
        "equivbench::fused_along_edges", _device, torch.float32, lib=_LIBRARY
    )
