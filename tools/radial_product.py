"""What making the radial network's last product inside the convolution could gain: the product of
all edges and then the convolution, beside the same in blocks of edges whose weights never leave
the cache.

    python tools/radial_product.py [--threads 2]

The product is torch's own, the fastest there is here; the convolution is ``fused``. Forward passes
are timed, with freed memory kept as `run` keeps it. Of the blocks each part is timed alone, with
its arguments in the cache, so that the sum of both is a bound from below.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from equivbench.environment import keep_memory
from equivbench.kernels.fused.edge_operator import along_edges
from equivbench.kernels.operations import Convolution

SIZES = ((64, 500, 10_000, 64), (32, 1000, 10_000, 32), (32, 36, 500, 32))
"""Channels to l = 2, nodes, edges, and width of the radial network: the case that is published, and
NequIP of ``forcefield/tensor-product-parameters`` with many molecules and with two."""
BLOCK = 512
"""Edges at once: 1.4 MB of weights for 64 channels."""
ROUNDS = 40


def least(call: Callable[[], object]) -> float:
    """The least time of ``call``, in milliseconds."""
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return 1e3 * min(seconds[ROUNDS // 8 :])


def times(channels: int, nodes: int, edges: int, hidden: int) -> dict[str, float]:
    """Milliseconds of the forward pass whole, of its parts, and of a block's parts times the
    number of blocks."""
    operation = Convolution((channels,) * 3, 2, 2)
    radial, matrix = torch.randn(edges, hidden), torch.randn(hidden, operation.weight_size)
    block = min(BLOCK, edges)
    weights, scratch = radial @ matrix, torch.empty(block, operation.weight_size)

    def arguments(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        own = max(2, count * nodes // edges)
        pairs = torch.stack([torch.randint(own, (count,)), torch.randint(own, (count,)).msort()])
        return torch.randn(own, operation.source_size), torch.randn(count, 9), pairs

    x, harmonics, pairs = arguments(edges)
    few, some, own_pairs = arguments(block)
    own_radial = radial[:block].clone()
    blocks = edges / block
    return {
        "both": least(lambda: along_edges(operation, x, harmonics, radial @ matrix, pairs)),
        "product": least(lambda: radial @ matrix),
        "convolution": least(lambda: along_edges(operation, x, harmonics, weights, pairs)),
        "product in blocks": blocks * least(lambda: torch.mm(own_radial, matrix, out=scratch)),
        "convolution in blocks": blocks
        * least(lambda: along_edges(operation, few, some, scratch, own_pairs)),
    }


def main() -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    keep_memory()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with torch.no_grad():
        for size in SIZES:
            found = times(*size)
            told = ", ".join(f"{name} {value:.3g} ms" for name, value in found.items())
            print("{} channels, {} nodes, {} edges, radial network of {}: ".format(*size) + told)


if __name__ == "__main__":
    main()
