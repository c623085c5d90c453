"""What the voxel convolutions share: the cost of a dense one, and one in float64 to be held
against. Imports no torch before it is asked for numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from equivbench.kernels.operations.base import Costs, Sizes, bilinear_passes

if TYPE_CHECKING:
    from torch import Tensor


def dense_passes(
    sizes: Sizes, itemsize: int, inputs: int, outputs: int, weights: int, kernel: int
) -> tuple[Costs, ...]:
    """The passes of a dense convolution whose kernel is expanded from ``weights``."""
    voxels, bank = sizes["samples"] * sizes["size"] ** 3, inputs * outputs * kernel**3
    return bilinear_passes(
        itemsize, voxels * inputs + weights, voxels * outputs, bank, 2 * voxels * bank
    )


def dense_convolution(x: Tensor, kernel: Tensor) -> Tensor:
    """[samples, outputs, size, size, size]: ``x`` [samples, inputs, size, size, size], padded with
    zeros, under ``kernel`` [outputs, inputs, k, k, k].

    It is one matrix product of all windows, a sample at a time: torch's own float64 convolution is
    a hundred times as slow.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    # Windows are made again for the gradient: kept, they would be as many grids as the kernel has
    # voxels.
    return torch.stack(
        [checkpoint(_windows_product, sample, kernel, use_reentrant=False) for sample in x]
    )


def _windows_product(sample: Tensor, kernel: Tensor) -> Tensor:
    import torch

    reach = kernel.shape[-1] // 2
    windows = torch.nn.functional.pad(sample, (reach,) * 6)
    for axis in (1, 2, 3):
        windows = windows.unfold(axis, kernel.shape[-1], 1)
    return torch.einsum("oijkl,ixyzjkl->oxyz", kernel, windows)
