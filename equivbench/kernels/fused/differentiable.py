"""Gives an operator its derivative in a way that torch.func's transforms take too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._functorch.autograd_function import enable_single_level_autograd_function  # type: ignore[attr-defined]
from torch.library import Library


def differentiable(
    library: Library, name: str, save: Callable[..., None], backward: Callable[..., tuple[Any, ...]]
) -> None:
    """Register ``backward`` as the derivative of the operator ``name`` of ``library``.

    ``save(ctx, inputs, output)`` keeps what ``backward(ctx, needs, *grads)`` asks for; ``needs``
    tells for each input whether its gradient is wanted. ``torch.library.register_autograd`` does
    the same, and is not used because torch.func.grad refuses what it makes, compiled or not. That
    refusal guards functions which call torch's own operators in their forward pass. Here the
    forward pass only hands the operator on below autograd, as torch's own operators do, so that
    each level of torch.func records one node and passes the operator to the next level.
    """
    operator = getattr(getattr(torch.ops, library.ns), name).default

    def hand_on(keys: Any, arguments: tuple[Any, ...]) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return operator.redispatch(keys & torch._C._after_autograd_keyset, *arguments)

    class Node(torch.autograd.function._SingleLevelFunction):
        @staticmethod
        def forward(ctx: Any, keys: Any, *arguments: Any) -> Any:
            # A node's forward pass runs without gradients, which the next level of torch.func may
            # still want.
            with torch.enable_grad():
                output = hand_on(keys, arguments)
            save(ctx, arguments, output)
            return output

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            return None, *backward(ctx, ctx.needs_input_grad[1:], *grads)

    def recorded(keys: Any, *arguments: Any) -> Any:
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments):
            with enable_single_level_autograd_function():
                return Node.apply(keys, *arguments)  # type: ignore[attr-defined]
        return hand_on(keys, arguments)

    library.impl(name, recorded, "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]
