"""The tensor-product convolution of NequIP, MACE and SevenNet: e3nn's "uvu" product, gathered and
summed over edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from equivbench.kernels.operations.base import INDEX_BYTES, Case, Costs, Drawn, Operation, Sizes
from equivbench.kernels.operations.paths import (
    Path,
    coupled_orders,
    coupling,
    features,
    triangle_paths,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Convolution(Operation):
    """out_i = sum over edges j -> i of w_p(ij) [x_j (x) Y(r_ij)]_p for each path p and channel:
    e3nn's "uvu" product.

    Inputs: ``x`` [nodes, sum_l (2 l + 1) C_l]; ``harmonics`` [edges, (edge_lmax + 1)^2];
    ``weights`` [edges, sum_p C_p], path after path; ``edge_index`` [2, edges] int64, row 0 the
    neighbour j, row 1 the centre i. Output: [nodes, sum_p (2 l_p + 1) C_p], path after path. C_p is
    the number of channels of the path's source degree. Coefficients are Wigner 3j times (2 l_p +
    1)^1/2 (e3nn's "component" normalisation), in the index order target, source, edge.
    """

    name = "convolution"
    differentiable = ("x", "harmonics", "weights")

    channels: tuple[int, ...]
    """C_l for l = 0, 1, ... of the source."""
    edge_lmax: int
    target_lmax: int
    parity: bool = True
    """Only the paths of natural parity (-1)^l, which keep O(3)."""

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """The paths, ordered by source, edge and target degree."""
        return triangle_paths(
            len(self.channels) - 1, self.edge_lmax, self.target_lmax, parity=self.parity
        )

    @property
    def weight_size(self) -> int:
        """Weights of an edge: one for each path and channel."""
        return sum(self.channels[path.source] for path in self.paths)

    @property
    def source_size(self) -> int:
        """Features of a node of ``x``."""
        return features(self.channels)

    @property
    def target_size(self) -> int:
        """Features of a node of the output."""
        return sum((2 * path.target + 1) * self.channels[path.source] for path in self.paths)

    def arguments(self, sizes: Sizes) -> dict[str, Drawn]:
        """Normal numbers and the edges of molecules."""
        nodes, edges = sizes["nodes"], sizes["edges"]
        # Normal numbers, not the harmonics of directions: their constant first column would hide a
        # kernel that ignores it.
        return {
            "x": Drawn((nodes, self.source_size)),
            "harmonics": Drawn((edges, (self.edge_lmax + 1) ** 2)),
            "weights": Drawn((edges, self.weight_size)),
            "edge_index": Drawn((2, edges), "neighbour_pairs"),
        }

    def reference(
        self, x: Tensor, harmonics: Tensor, weights: Tensor, edge_index: Tensor
    ) -> Tensor:
        """Dense products, path by path and chunk by chunk of edges."""
        form = _Form(self, tuple(coupling(path).to(x) for path in self.paths), edge_index)
        # The fourth argument only gives the shape of what the derivative by it has.
        cotangent = x.new_zeros(()).expand(x.shape[0], self.target_size)
        out: Tensor = _partial_function().apply(form, 3, x, harmonics, weights, cotangent)
        return out

    def passes(self, sizes: Sizes, itemsize: int) -> tuple[Costs, ...]:
        """Unfused, a gather, a product and a sum follow each other."""
        nodes, edges = sizes["nodes"], sizes["edges"]
        x, out = nodes * self.source_size, nodes * self.target_size
        gathered, messages = edges * self.source_size, edges * self.target_size
        harmonics, weights = edges * (self.edge_lmax + 1) ** 2, edges * self.weight_size
        arguments = x + harmonics + weights
        product = gathered + harmonics + weights
        index = 2 * edges * INDEX_BYTES
        pairs = edges * sum(
            self.channels[path.source] * len(coupled_orders(path)) for path in self.paths
        )
        sources = edges * sum(
            self.channels[path.source] * (2 * path.source + 1) for path in self.paths
        )
        gather, scatter = x + gathered, messages + out
        return (
            Costs(
                itemsize * arguments + index,
                itemsize * out,
                itemsize * (gather + (product + messages) + scatter) + index,
                2 * pairs + 2 * messages,
            ),
            # From the output's gradient, those by x, harmonics and weights.
            Costs(
                itemsize * (arguments + out) + index,
                itemsize * arguments,
                itemsize * (scatter + (messages + 2 * product) + gather) + index,
                6 * pairs + 3 * messages + sources,
            ),
            # From gradients of these three, those by x, harmonics, weights and the output's
            # gradient.
            Costs(
                itemsize * (2 * arguments + out) + index,
                itemsize * (arguments + out),
                itemsize * (gather + (2 * messages + 3 * product) + scatter + gather) + index,
                14 * pairs + 7 * messages + sources,
            ),
        )


# The reference is the four partial derivatives of one quadrilinear form. <g, conv(x, h, w)> is
# linear in each of x, h, w and g. Its derivative by one of them is a function of the other three,
# and the derivative of that is again such a function with one argument replaced: derivatives of
# every order are right by construction, and between calls nothing is kept but the arguments, so
# that 10,000 edges of 64 channels to l = 3 fit a few GiB.

_CHUNK = 256
"""Edges at once: what lies between fits a cache of a few MB."""


class _Form(NamedTuple):
    """What the arguments of the form mean."""

    operation: Convolution
    couplings: tuple[Tensor, ...]
    """One [2 l_target + 1, 2 l_source + 1, 2 l_edge + 1] a path."""
    edge_index: Tensor


@lru_cache(maxsize=1)
def _partial_function() -> Any:
    """The autograd function, made at its first use: this file is imported where torch is not."""
    import torch

    class Partial(torch.autograd.Function):
        """The derivative of the form by argument ``by``, as a function of the other three."""

        @staticmethod
        def forward(form: _Form, by: int, *arguments: Tensor) -> Tensor:
            return _partial(form, by, arguments)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            ctx.form, ctx.by, *arguments = inputs
            ctx.save_for_backward(*arguments)
            ctx.save_for_forward(*arguments)
            ctx.set_materialize_grads(False)

        @staticmethod
        def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
            if cotangents[0] is None:
                return (None,) * 6
            replaced = list(ctx.saved_tensors)
            replaced[ctx.by] = cotangents[0]
            gradients = [
                Partial.apply(ctx.form, other, *replaced)  # type: ignore[no-untyped-call]
                if other != ctx.by and ctx.needs_input_grad[2 + other]
                else None
                for other in range(4)
            ]
            return (None, None, *gradients)

        @staticmethod
        def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
            arguments = ctx.saved_tensors
            out = torch.zeros_like(arguments[ctx.by])
            for other, tangent in enumerate(tangents[2:]):
                if other != ctx.by and tangent is not None:
                    replaced = [*arguments[:other], tangent, *arguments[other + 1 :]]
                    out = out + Partial.apply(ctx.form, ctx.by, *replaced)  # type: ignore[no-untyped-call]
            return out

    return Partial


def _partial(form: _Form, by: int, arguments: tuple[Tensor, ...]) -> Tensor:
    """The derivative of <g, conv(x, h, w)> by argument ``by`` of (x, h, w, g), over chunks of
    edges."""
    import torch

    out = torch.zeros_like(arguments[by], memory_format=torch.contiguous_format)
    for start in range(0, form.edge_index.shape[1], _CHUNK):
        rows = slice(start, start + _CHUNK)
        source, centre = form.edge_index[:, rows]
        places = (source, rows, rows, centre)
        chunk = [argument[place] for argument, place in zip(arguments, places, strict=True)]
        part = torch.zeros_like(chunk[by], memory_format=torch.contiguous_format)
        for coefficients, mine, *factors in zip(
            form.couplings,
            _path_views(form.operation, part, by),
            *(_path_views(form.operation, one, n) for n, one in enumerate(chunk)),
            strict=True,
        ):
            mine += _path_product(by, coefficients, *factors)
        if by in (0, 3):
            out.index_add_(0, source if by == 0 else centre, part)
        else:
            out[rows] = part
    return out


def _path_product(
    by: int, coefficients: Tensor, x: Tensor, harmonics: Tensor, weights: Tensor, cotangent: Tensor
) -> Tensor:
    """One path's derivative by argument ``by``, of x [n, s, C], harmonics [n, e], weights [n, C]
    and cotangent [n, t, C]."""
    import torch

    if by == 1:
        return torch.einsum("nts,tse->ne", (cotangent * weights.unsqueeze(1)) @ x.mT, coefficients)
    matrix = torch.einsum("tse,ne->nts", coefficients, harmonics)
    if by == 0:
        return matrix.mT @ (cotangent * weights.unsqueeze(1))
    product = matrix @ x
    return (product * cotangent).sum(1) if by == 2 else product * weights.unsqueeze(1)


def _path_views(operation: Convolution, tensor: Tensor, argument: int) -> Iterator[Tensor]:
    """The part of one ``argument`` that belongs to each path in turn: [n, 2 l + 1, C], [n, 2 l + 1]
    or [n, C]."""
    weight = target = 0
    for path in operation.paths:
        count, height = operation.channels[path.source], 2 * path.target + 1
        if argument == 0:
            first = features(operation.channels[: path.source])
            rows = tensor.narrow(1, first, (2 * path.source + 1) * count)
            yield rows.view(len(tensor), -1, count)
        elif argument == 1:
            yield tensor.narrow(1, path.edge**2, 2 * path.edge + 1)
        elif argument == 2:
            yield tensor.narrow(1, weight, count)
        else:
            yield tensor.narrow(1, target, height * count).view(len(tensor), height, count)
        weight, target = weight + count, target + height * count


_DEV = {"nodes": 160, "edges": 1_920}
_LARGE = {"nodes": 500, "edges": 10_000}

CASES = (
    Case(
        "convolution-c8-l2",
        Convolution((8, 8, 8), 2, 2),
        _DEV,
        2,
        "the tensor-product pair's dev preset: 8 molecules of 20 atoms with 12 neighbours",
        quick=True,
    ),
    Case(
        "convolution-c32-l2",
        Convolution((32, 32, 32), 2, 2),
        _DEV,
        2,
        "the tensor-product pair's small preset: 8 molecules of 20 atoms with 12 neighbours",
        quick=True,
    ),
    Case(
        "convolution-c64-l2",
        Convolution((64, 64, 64), 2, 2),
        _LARGE,
        2,
        "NequIP, 64 channels to l = 2 (2101.03164)",
    ),
    Case(
        "convolution-c128-l2-ls3",
        Convolution((128, 128), 3, 2),
        _LARGE,
        2,
        "128 channels of l <= 1 with harmonics to l = 3, as MACE's, messages to l = 2",
    ),
    Case(
        "convolution-c64-l3",
        Convolution((64, 64, 64, 64), 3, 3),
        _LARGE,
        2,
        "NequIP, 64 channels to l = 3 (2101.03164)",
    ),
    Case(
        "convolution-mace-128",
        Convolution((128, 128), 3, 3),
        _LARGE,
        2,
        "MACE-MP-0 medium: 128x0e+128x1o, harmonics and messages to l = 3 (2401.00096)",
    ),
    Case(
        "convolution-sevennet-0",
        Convolution((128, 64, 32), 2, 2, parity=False),
        _LARGE,
        2,
        "SevenNet-0: 128x0e+64x1e+32x2e, is_parity: False"
        " (MDIL-SNU/SevenNet, pretrained_potentials/SevenNet_0/fine_tune.yaml)",
    ),
)
