"""Forward seconds of each equivariant layer over a plain layer of the same shape, in alternation,
one thread.

``python tools/compare_layers.py``: cube-group and steerable convolutions beside
``torch.nn.Conv3d``, invariant point and pair-biased attention and attended vectors beside
``scaled_dot_product_attention`` with its projections, at ``small`` sizes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from e3nn import o3
from torch import nn

from equivbench.tasks.flow.networks.invariant_points import FrameAttention
from equivbench.tasks.flow.networks.transformer import PairBiasedAttention
from equivbench.tasks.flow.networks.vector_head import AttendedVectors
from equivbench.tasks.voxel.networks.octahedral import ORDER, GroupConv
from equivbench.tasks.voxel.networks.steerable import steerable_layers

SAMPLES, SIZE = 4, 24
CHAINS, RESIDUES, DIM, HEADS, PAIR = 16, 64, 96, 4, 16
ROUNDS = 20


def cases() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """(equivariant layer, plain layer of the same shape) by name."""
    torch.manual_seed(0)
    grid = torch.randn(SAMPLES, ORDER, SIZE, SIZE, SIZE)
    group, plain = GroupConv(1, 1, 3).eval(), nn.Conv3d(ORDER, ORDER, 3, padding=1)
    steerable = steerable_layers((8, 3, 1), 3.9, 3)
    width = steerable.width(1)
    irreps = torch.randn(SAMPLES, o3.Irreps(width).dim, SIZE, SIZE, SIZE)
    e3nn_conv, same = (
        steerable.conv(width, width),
        nn.Conv3d(irreps.shape[1], irreps.shape[1], 3, padding=1),
    )
    x, bias = torch.randn(CHAINS, RESIDUES, DIM), torch.randn(CHAINS, HEADS, RESIDUES, RESIDUES)
    frames = torch.linalg.qr(torch.randn(CHAINS, RESIDUES, 3, 3))[0]
    positions, mask = (
        torch.randn(CHAINS, RESIDUES, 3),
        torch.ones(CHAINS, RESIDUES, dtype=torch.bool),
    )
    pair = torch.randn(CHAINS, RESIDUES, RESIDUES, PAIR)
    points, attention = (
        FrameAttention(DIM, HEADS, 12, 3, 4),
        PairBiasedAttention(DIM, HEADS),
    )
    vectors = AttendedVectors(DIM, PAIR, 2)
    return {
        f"cube-group convolution, 24 channels, {SIZE}^3": (
            lambda: group(grid),
            lambda: plain(grid),
        ),
        f"steerable convolution, {width} ({irreps.shape[1]} channels), {SIZE}^3": (
            lambda: e3nn_conv(irreps),
            lambda: same(irreps),
        ),
        "invariant point attention": (
            lambda: points(x, bias, frames, positions),
            lambda: attention(x, bias),
        ),
        "attended vectors (the vector head)": (
            lambda: vectors(x, pair, positions, positions, mask),
            lambda: attention(x, bias),
        ),
    }


def seconds(call: Callable[[], object]) -> float:
    """Of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Print a row for each case: least milliseconds of both and their ratio."""
    torch.set_num_threads(1)
    with torch.no_grad():
        for name, (ours, plain) in cases().items():
            ours(), plain()
            rounds = [(seconds(ours), seconds(plain)) for _ in range(ROUNDS)]
            first, second = (1e3 * min(column) for column in zip(*rounds, strict=True))
            print(f"{name}: {first:.1f} ms, plain {second:.1f} ms, ratio {first / second:.2f}")


if __name__ == "__main__":
    main()
