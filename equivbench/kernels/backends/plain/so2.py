"""eSCN's SO(2) convolution in plain torch, Wigner matrices included (Passaro & Zitnick 2023,
2302.03655)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from equivbench.kernels.backend import Kernel, Tensors
from equivbench.kernels.backends.plain.wigner import WignerToAxis
from equivbench.kernels.operations import SO2Convolution


def so2_kernel(operation: SO2Convolution, like: Tensor) -> Kernel:
    """By Wigner matrices of our own."""
    wigner = WignerToAxis(operation.lmax, operation.mmax).to(like)
    return kernel_with(operation, wigner, "torch matmul")


def kernel_with(
    operation: SO2Convolution, wigner: Callable[[Tensor], Tensor], method: str
) -> Kernel:
    """Rows |m| <= mmax are turned by a batched product with the matrices [edges, K, (lmax + 1)^2]
    that ``wigner`` makes of vectors [edges, 3], then mixed by one dense map for each m."""
    counts = operation.degrees
    weight_sizes = [count * operation.channels for count in counts]
    row_counts = [count * (1 if m == 0 else 2) for m, count in enumerate(counts)]
    shape = ((operation.lmax + 1) ** 2, operation.channels)

    def run(inputs: Tensors) -> Tensor:
        x, edge_index = inputs["x"], inputs["edge_index"]
        turns = wigner(inputs["vectors"])
        gathered = torch.unflatten(x.index_select(0, edge_index[0]), 1, shape)
        z = torch.split(turns @ gathered, row_counts, dim=1)
        scales = torch.split(inputs["weights"], weight_sizes, dim=1)
        maps = torch.split(inputs["mixing"], operation.mixing_sizes)
        mixed = [
            _mixed(m, counts[m], *one).view(len(gathered), row_counts[m], operation.hidden)
            for m, one in enumerate(zip(z, scales, maps, strict=True))
        ]
        messages = (turns.mT @ torch.cat(mixed, dim=1)).flatten(1)
        return x.new_zeros(len(x), messages.shape[1]).index_add(0, edge_index[1], messages)

    return Kernel(run, method)


def _mixed(m: int, count: int, z: Tensor, scale: Tensor, weights: Tensor) -> Tensor:
    """[edges, rows H] of one order, from z [edges, rows, C] with the rows of m and then those of
    -m."""
    if m == 0:
        return (z.flatten(1) * scale) @ weights.view(z.shape[1] * z.shape[2], -1)
    size = count * z.shape[2]
    cosine_map, sine_map = weights.view(2, size, -1).unbind()
    both = z.reshape(len(z), 2, size) * scale.unsqueeze(1)
    # Both orders by both maps in one product.
    cosine, sine = (both @ cosine_map, both @ sine_map)
    plus, minus = cosine[:, 0] - sine[:, 1], cosine[:, 1] + sine[:, 0]
    return torch.cat([plus, minus], dim=1)
