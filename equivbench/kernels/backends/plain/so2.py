"""SO(2) convolutions in plain torch, alone with their Wigner matrices as eSCN has them and two with
a gate between them as in eSEN (Passaro & Zitnick 2023, 2302.03655; Fu et al. 2025, 2502.12147).

What takes features into the frames of the edges and back is a pair of functions, of which another
backend has its own; the products with weights and the gate are torch's in either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch._dynamo
from torch import Tensor
from torch.nn import functional

from equivbench.kernels.backend import Kernel, Tensors
from equivbench.kernels.backends.plain.wigner import WignerToAxis, whole_matrices
from equivbench.kernels.operations import SO2Convolution, SO2Message
from equivbench.kernels.operations.edge_frames import FrameTurn, frame_rows
from equivbench.kernels.operations.so2_message import part_sizes
from equivbench.kernels.sums import sum_by


class Into(Protocol):
    """Features of nodes in the frames of edges, scaled by the edges' weights."""

    def __call__(self, frames: Tensor, weights: Tensor, x: Tensor, edge_index: Tensor) -> Tensor:
        """[edges, edge_size] from ``x`` [nodes, node_size], ``weights`` [edges, weight_size] and
        the Wigner matrices as this pair of functions takes them."""
        ...


class Back(Protocol):
    """Features of edges turned back, scaled by a number an edge and summed at the centres."""

    def __call__(
        self, frames: Tensor, z: Tensor, scales: Tensor | None, edge_index: Tensor, nodes: int
    ) -> Tensor:
        """[nodes, node_size] from ``z`` [edges, edge_size] and ``scales`` [edges, 1]; None: all
        one."""
        ...


def so2_kernel(operation: SO2Convolution, like: Tensor) -> Kernel:
    """By Wigner matrices of our own."""
    elements = WignerToAxis(operation.lmax, operation.mmax).to(like)
    whole = whole_matrices(operation.lmax, operation.mmax, like)
    return kernel_with(operation, lambda vectors: whole(elements(vectors)), like, "torch matmul")


def kernel_with(
    operation: SO2Convolution, wigner: Callable[[Tensor], Tensor], like: Tensor, method: str
) -> Kernel:
    """By batched products with the whole matrices [edges, K, (lmax + 1)^2] that ``wigner`` makes of
    vectors [edges, 3]."""
    into, back = dense_into(operation.into), dense_back(operation.back, like)
    return Kernel(convolved(operation, wigner, into, back), method)


def message_kernel(operation: SO2Message, like: Tensor) -> Kernel:
    """Twice differentiable, and traced whole by torch.compile."""
    whole = whole_matrices(operation.lmax, operation.mmax, like)
    into, back = dense_into(operation.into), dense_back(operation.back, like)
    return Kernel(passed(operation, whole, into, back), "torch matmul")


def dense_into(turn: FrameTurn) -> Into:
    """By one batched product with whole matrices for each end."""
    rows, shape = len(turn.rows), ((turn.degree + 1) ** 2, turn.channels)
    width, counts = turn.ends * turn.channels, turn.counts

    def into(frames: Tensor, weights: Tensor, x: Tensor, edge_index: Tensor) -> Tensor:
        turns = frames[:, :rows]
        # Turned one by one: the gradients of two halves of one tensor are slow to sum.
        ends = [
            turns @ torch.unflatten(x.index_select(0, row), 1, shape)
            for row in edge_index.unbind()[: turn.ends]
        ]
        z = torch.cat(ends, dim=2) if turn.ends > 1 else ends[0]
        rows_of_weights = torch.unflatten(weights, 1, (-1, width))
        unturned, *turned = torch.split(rows_of_weights, counts, dim=1)
        # The rows of -m have the weights of m.
        factors = torch.cat([unturned, *(each for each in turned for _ in range(2))], dim=1)
        return (z * factors).flatten(1)

    return into


def dense_back(turn: FrameTurn, like: Tensor) -> Back:
    """By one batched product with whole matrices."""
    rows, channels = frame_rows(turn.lmax, turn.order), turn.channels
    some = turn.degree < turn.lmax
    chosen = [n for n, (degree, _) in enumerate(rows) if degree <= turn.degree]
    kept = torch.tensor(chosen, device=like.device)
    torch._dynamo.mark_static(kept)

    def back(
        frames: Tensor, z: Tensor, scales: Tensor | None, edge_index: Tensor, nodes: int
    ) -> Tensor:
        turns = frames[:, : len(rows)]
        if some:
            turns = turns.index_select(1, kept)[:, :, : (turn.degree + 1) ** 2]
        features = torch.unflatten(z, 1, (-1, channels))
        if scales is not None:
            features = features * scales.unsqueeze(-1)
        messages = (turns.mT @ features).flatten(1)
        return sum_by(edge_index[1], messages, nodes)

    return back


def convolved(
    operation: SO2Convolution, wigner: Callable[[Tensor], Tensor], into: Into, back: Back
) -> Callable[[Tensors], Tensor]:
    """The operation, with what ``wigner`` makes of vectors for the frames that ``into`` and
    ``back`` take."""
    sizes = [count * operation.channels for count in operation.into.row_counts]

    def run(inputs: Tensors) -> Tensor:
        x, edge_index = inputs["x"], inputs["edge_index"]
        frames = wigner(inputs["vectors"])
        z = torch.split(into(frames, inputs["weights"], x, edge_index), sizes, dim=1)
        maps = torch.split(inputs["mixing"], operation.mixing_sizes)
        first, *others = zip(z, maps, strict=True)
        mixed = [first[0] @ first[1].view(sizes[0], -1), *(_turned(*one) for one in others)]
        return back(frames, torch.cat(mixed, dim=1), None, edge_index, x.shape[0])

    return run


def passed(
    operation: SO2Message, frames_of: Callable[[Tensor], Tensor], into: Into, back: Back
) -> Callable[[Tensors], Tensor]:
    """The operation, with what ``frames_of`` makes of the elements for the frames that ``into`` and
    ``back`` take."""
    sizes = [count * 2 * operation.channels for count in operation.into.row_counts]
    first_sizes = part_sizes(operation.first_shapes)
    second_sizes = part_sizes(operation.second_shapes)

    def run(inputs: Tensors) -> Tensor:
        x, edge_index = inputs["x"], inputs["edge_index"]
        frames = frames_of(inputs["frames"])
        parts = torch.split(into(frames, inputs["weights"], x, edge_index), sizes, dim=1)
        y = _mapped(parts, torch.split(inputs["first"], first_sizes))
        gated = _gated(y, operation.lmax, operation.hidden)
        mixed = _mapped(gated, torch.split(inputs["second"], second_sizes))
        z = torch.cat(mixed, dim=1)
        return back(frames, z, inputs["scales"], edge_index, x.shape[0])

    return run


def _mapped(parts: Sequence[Tensor], flat: Sequence[Tensor]) -> list[Tensor]:
    """[edges, rows outputs] of each order, from [edges, rows inputs]; ``flat`` are W_0, its bias,
    then A_m and B_m for each m."""
    first, *others = parts
    matrix, bias, *maps = flat
    unturned = torch.addmm(bias, first, matrix.view(first.shape[1], -1))
    return [unturned, *(_turned(*one) for one in zip(others, maps, strict=True))]


def _turned(z: Tensor, flat: Tensor) -> Tensor:
    """[edges, rows outputs] with the rows of m and then those of -m, from the same before the map;
    ``flat`` are A_m and B_m. Both rows by both maps in one product."""
    real, imaginary = flat.view(2, z.shape[1] // 2, -1).unbind()
    plus = torch.cat([real, imaginary], dim=1)
    minus = torch.cat([-imaginary, real], dim=1)
    return z @ torch.cat([plus, minus])


def _gated(parts: Sequence[Tensor], lmax: int, hidden: int) -> list[Tensor]:
    """SiLU of the scalars, and every other row times a sigmoid of its degree, whose argument is
    what the first part has after its own rows."""
    first, *others = parts
    sizes = [hidden, lmax * hidden, lmax * hidden]
    scalars, features, before = torch.split(first, sizes, dim=1)
    gates = torch.sigmoid(before)
    gated = [torch.cat([functional.silu(scalars), features * gates], dim=1)]
    for m, part in enumerate(others, 1):
        # Degrees m, m + 1, ...
        own = gates if m == 1 else gates[:, (m - 1) * hidden :]
        both = torch.unflatten(part, 1, (2, -1)) * own.unsqueeze(1)
        gated.append(both.flatten(1))
    return gated
