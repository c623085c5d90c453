"""The convolution's reference: the four partial derivatives of one quadrilinear form, dense and
chunked over edges.

<g, conv(x, h, w)> is linear in each of x, h, w and g. Its derivative by one of them is a function
of the other three, and the derivative of that is again such a function with one argument replaced:
derivatives of every order are right by construction, and between calls nothing is kept but the
arguments, so that 10,000 edges of 64 channels to l = 3 fit a few GiB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from e3nn import o3
from torch import Tensor

from equivbench.kernels.operations import Convolution, Path

CHUNK = 256
"""Edges at once: what lies between fits a cache of a few MB."""


class Form(NamedTuple):
    """What the arguments of the form mean."""

    operation: Convolution
    couplings: tuple[Tensor, ...]
    """One [2 l_target + 1, 2 l_source + 1, 2 l_edge + 1] a path."""
    edge_index: Tensor


def coupling(path: Path) -> Tensor:
    """[2 l_target + 1, 2 l_source + 1, 2 l_edge + 1] float64: Wigner 3j, "component"-normalised as
    e3nn's TensorProduct."""
    wigner = o3.wigner_3j(path.target, path.source, path.edge, dtype=torch.float64)
    scaled: Tensor = wigner * (2 * path.target + 1) ** 0.5
    return scaled


def convolution(operation: Convolution) -> Callable[..., Tensor]:
    """``reference(x=, harmonics=, weights=, edge_index=)``, float64, on a CPU or a GPU."""
    couplings = tuple(coupling(path) for path in operation.paths)

    def run(x: Tensor, harmonics: Tensor, weights: Tensor, edge_index: Tensor) -> Tensor:
        form = Form(operation, tuple(one.to(x) for one in couplings), edge_index)
        # The fourth argument only gives the shape of what the derivative by it has.
        cotangent = x.new_zeros(()).expand(x.shape[0], operation.target_size)
        out: Tensor = _Partial.apply(form, 3, x, harmonics, weights, cotangent)  # type: ignore[no-untyped-call]
        return out

    return run


class _Partial(torch.autograd.Function):
    """The derivative of the form by argument ``by``, as a function of the other three."""

    @staticmethod
    def forward(ctx: Any, form: Form, by: int, *arguments: Tensor) -> Tensor:
        ctx.form, ctx.by = form, by
        ctx.save_for_backward(*arguments)
        return partial(form, by, arguments)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        replaced = list(ctx.saved_tensors)
        replaced[ctx.by] = cotangents[0]
        gradients = [
            _Partial.apply(ctx.form, other, *replaced)  # type: ignore[no-untyped-call]
            if other != ctx.by and ctx.needs_input_grad[2 + other]
            else None
            for other in range(4)
        ]
        return (None, None, *gradients)


def partial(form: Form, by: int, arguments: tuple[Tensor, ...]) -> Tensor:
    """The derivative of <g, conv(x, h, w)> by argument ``by`` of (x, h, w, g), over chunks of
    edges."""
    out = torch.zeros_like(arguments[by], memory_format=torch.contiguous_format)
    for start in range(0, form.edge_index.shape[1], CHUNK):
        rows = slice(start, start + CHUNK)
        source, centre = form.edge_index[:, rows]
        places = (source, rows, rows, centre)
        chunk = [argument[place] for argument, place in zip(arguments, places, strict=True)]
        part = torch.zeros_like(chunk[by], memory_format=torch.contiguous_format)
        for coefficients, mine, *factors in zip(
            form.couplings,
            _views(form.operation, part, by),
            *(_views(form.operation, one, n) for n, one in enumerate(chunk)),
            strict=True,
        ):
            mine += _product(by, coefficients, *factors)
        if by in (0, 3):
            out.index_add_(0, source if by == 0 else centre, part)
        else:
            out[rows] = part
    return out


def _product(
    by: int, coefficients: Tensor, x: Tensor, harmonics: Tensor, weights: Tensor, cotangent: Tensor
) -> Tensor:
    """One path's derivative by argument ``by``, of x [n, s, C], harmonics [n, e], weights [n, C]
    and cotangent [n, t, C]."""
    if by == 1:
        return torch.einsum("nts,tse->ne", (cotangent * weights.unsqueeze(1)) @ x.mT, coefficients)
    matrix = torch.einsum("tse,ne->nts", coefficients, harmonics)
    if by == 0:
        return matrix.mT @ (cotangent * weights.unsqueeze(1))
    product = matrix @ x
    return (product * cotangent).sum(1) if by == 2 else product * weights.unsqueeze(1)


def _views(operation: Convolution, tensor: Tensor, argument: int) -> Iterator[Tensor]:
    """The part of one ``argument`` that belongs to each path in turn: [n, 2 l + 1, C], [n, 2 l + 1]
    or [n, C]."""
    weight = target = 0
    for path in operation.paths:
        count, height = operation.channels[path.source], 2 * path.target + 1
        if argument == 0:
            first = sum(
                (2 * degree + 1) * width
                for degree, width in enumerate(operation.channels[: path.source])
            )
            yield tensor.narrow(1, first, (2 * path.source + 1) * count).view(
                len(tensor), -1, count
            )
        elif argument == 1:
            yield tensor.narrow(1, path.edge**2, 2 * path.edge + 1)
        elif argument == 2:
            yield tensor.narrow(1, weight, count)
        else:
            yield tensor.narrow(1, target, height * count).view(len(tensor), height, count)
        weight, target = weight + count, target + height * count
