"""Our operators made known to torch: one implementation, and derivatives that eager mode,
torch.func's transforms and torch.compile take alike."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._functorch.autograd_function import enable_single_level_autograd_function  # type: ignore[attr-defined]
from torch.autograd import forward_ad
from torch.library import Library

from equivbench.kernels.fused.derivatives import (
    FusedCall,
    FusedOperator,
    batched,
    pulled_back,
    pushed_forward,
)

_LIBRARY = Library("equivbench", "FRAGMENT")  # type: ignore[no-untyped-call]

# ``torch.library.register_autograd`` does the same, and is not used because torch.func.grad refuses
# what it makes, compiled or not, and because it knows no forward mode. That refusal guards
# functions which call torch's own operators in their forward pass. Here the forward pass only hands
# the operator on below autograd, as torch's own operators do, so that each level of torch.func
# records one node and passes the operator to the next level.


def register(operator: FusedOperator, schema: str) -> None:
    """Define ``operator`` in ``torch.ops.equivbench`` by ``schema``, its arguments and results."""
    name = f"equivbench::{operator.name}"
    _LIBRARY.define(operator.name + schema)  # type: ignore[no-untyped-call]
    _LIBRARY.impl(operator.name, operator.run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    _LIBRARY.impl(operator.name, partial(_recorded, operator), "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]
    torch.library.register_fake(name, operator.fake, lib=_LIBRARY)
    torch.library.register_vmap(name, partial(batched, operator), lib=_LIBRARY)
    # Networks in bfloat16 keep it to their invariant parts.
    for device in ("cpu", "cuda"):
        torch.library.register_autocast(name, device, torch.float32, lib=_LIBRARY)


def _hand_on(operator: FusedOperator, keys: Any, arguments: tuple[Any, ...]) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return getattr(torch.ops.equivbench, operator.name).default.redispatch(
            keys & torch._C._after_autograd_keyset, *arguments
        )


class _Node(torch.autograd.function._SingleLevelFunction):
    @staticmethod
    def forward(ctx: Any, operator: FusedOperator, recorded: bool, keys: Any, *given: Any) -> Any:
        # A node's forward pass runs without derivatives, which the next level of torch.func may
        # still want.
        with torch.set_grad_enabled(recorded), forward_ad._set_fwd_grad_enabled(True):
            output = _hand_on(operator, keys, given)
        # Gradients that nobody asks for stay None rather than zeros of an edge tensor's size.
        ctx.set_materialize_grads(False)
        ctx.operator, ctx.needs, ctx.description = operator, given[0], given[-2:]
        ctx.save_for_backward(*given[1:-2])
        ctx.save_for_forward(*given[1:-2])
        return output

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        call = FusedCall.of(ctx.operator, (ctx.needs, *ctx.saved_tensors, *ctx.description))
        # Before the tensors stand three arguments of forward and ``needs``, behind them the
        # description.
        found = pulled_back(call, ctx.needs_input_grad[4:-3], cotangents)
        return None, None, None, None, *found, None, *[None] * len(ctx.description)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        # What is saved carries its tangents, which are not to be followed a second time.
        values = [_value(one) for one in ctx.saved_tensors]
        given = (ctx.needs, *values, *ctx.description)
        call = FusedCall.of(ctx.operator, given)
        with forward_ad._set_fwd_grad_enabled(True):
            moved = pushed_forward(call, FusedCall.of(ctx.operator, tangents[3:]))
        shaped = zip(moved, ctx.operator.fake(*given), strict=True)
        return tuple(torch.zeros_like(like) if one is None else one for one, like in shaped)


def _value(one: Tensor | None) -> Tensor | None:
    if one is None or not one.is_floating_point():
        return one
    value: Tensor = forward_ad.unpack_dual(one, level=0).primal  # type: ignore[no-untyped-call]
    return value


def _recorded(operator: FusedOperator, keys: Any, *arguments: Any) -> Any:
    recorded = torch.is_grad_enabled()
    # Tangents of forward mode exist within these two only.
    pushed = (
        forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None
    )
    if pushed or (recorded and torch._C._any_requires_grad(*arguments)):
        with enable_single_level_autograd_function():
            return _Node.apply(operator, recorded, keys, *arguments)  # type: ignore[attr-defined]
    return _hand_on(operator, keys, arguments)
