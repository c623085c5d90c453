"""The convolution in plain torch, laid out for speed: channels innermost, one matrix product for
each source degree.

e3nn keeps the channels of an irrep outermost and its TensorProduct visits the paths one by one.
With channels innermost every operation is a plain matrix product; ``split`` and ``unbind`` rather
than slices, because the backward of a slice fills a tensor with zeros. ``index_select`` and
``index_add`` are written out because on a CPU they are 5-10 times as fast as ``x[index]`` and its
backward.
"""

from __future__ import annotations

import torch
import torch._dynamo
from torch import Tensor

from equivbench.kernels.backend import Kernel, Tensors
from equivbench.kernels.operations import Convolution
from equivbench.kernels.operations.paths import coupling
from equivbench.kernels.sums import sum_by


def convolution_kernel(operation: Convolution, like: Tensor) -> Kernel:
    """Twice differentiable, and traced whole by torch.compile."""
    # Plain ints and lists: torch.compile does not trace Irreps. For each source degree, the heights
    # of its products.
    couplings, heights, counts = [], [], []
    edge_rows = (operation.edge_lmax + 1) ** 2
    for source, channels in enumerate(operation.channels):
        stacked = []
        for path in operation.paths:
            if path.source == source:
                full = torch.zeros(
                    2 * path.target + 1, 2 * source + 1, edge_rows, dtype=torch.float64
                )
                full[..., path.edge**2 : (path.edge + 1) ** 2] = coupling(path)
                stacked.append(full)
                counts.append(channels)
        heights.append([len(full) for full in stacked])
        couplings.append(torch.cat(stacked).flatten(0, 1).T.contiguous().to(like))
        # A constant: with dynamic shapes, a batch that happens to have as many molecules as it has
        # rows would share its size.
        torch._dynamo.mark_static(couplings[-1])
    sizes = [(2 * degree + 1) * channels for degree, channels in enumerate(operation.channels)]

    def run(inputs: Tensors) -> Tensor:
        x, harmonics, weights, edge_index = (
            inputs[name] for name in ("x", "harmonics", "weights", "edge_index")
        )
        sums: list[Tensor] = []
        path_weights = iter(torch.split(weights, counts, dim=1))
        for source, (part, stacked) in enumerate(
            zip(torch.split(x, sizes, dim=1), heights, strict=True)
        ):
            height = 2 * source + 1
            matrices = (harmonics @ couplings[source]).view(-1, sum(stacked), height)
            neighbours = part.index_select(0, edge_index[0]).view(
                -1, height, sizes[source] // height
            )
            # A batched product with an inner size of one is slower than the broadcast product that
            # it is.
            product = matrices * neighbours if source == 0 else matrices @ neighbours
            for message in torch.split(product, stacked, dim=1):
                weighted = (message * next(path_weights).unsqueeze(1)).flatten(1)
                sums.append(sum_by(edge_index[1], weighted, x.shape[0]))
        return torch.cat(sums, dim=1)

    return Kernel(run, method="torch matmul")
