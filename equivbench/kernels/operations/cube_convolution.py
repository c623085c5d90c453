"""The voxel convolution between features that the cube's rotations permute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from equivbench.kernels.operations.base import Case, Drawn, Operation, Sizes

if TYPE_CHECKING:
    from torch import Tensor

ORDER = 24
"""Rotations of the cube."""
Offset = tuple[int, ...]
"""Voxels along each axis from the centre of a kernel."""


@dataclass(frozen=True)
class CubeConvolution(Operation):
    """A convolution between features in the regular representation of the cube's 24 rotations
    (Cohen & Welling 2016).

    out(g, r) = sum_h sum_s w(g^-1 h, g^-1 s) f(h, r + s), rotations in the order of
    ``octahedral_rotations``, offsets s on the kernel's odd grid; zero padding.

    Inputs: ``x`` [samples, 24 inputs, size, size, size], feature by feature, 24 copies each;
    ``weights`` [outputs, inputs, 24 kernel^3]. Output: [samples, 24 outputs, size, size, size].
    """

    name = "cube-convolution"
    differentiable = ("x", "weights")

    inputs: int
    outputs: int
    kernel: int

    def arguments(self, sizes: Sizes) -> dict[str, Drawn]:
        """Normal numbers, weights scaled by the taps that come together."""
        taps, grid = ORDER * self.kernel**3, (sizes["size"],) * 3
        scale = (taps * self.inputs) ** -0.5
        return {
            "x": Drawn((sizes["samples"], ORDER * self.inputs, *grid)),
            "weights": Drawn((self.outputs, self.inputs, taps), scale=scale),
        }

    def reference(self, x: Tensor, weights: Tensor) -> Tensor:
        """Each copy of the output from the grid turned back, by the filter as it is: out(g) = g (w
        * g^-1 f)."""
        import torch

        from equivbench.symmetry.grids import permute_grid
        from equivbench.symmetry.rotations import octahedral_rotations

        elements = octahedral_rotations(torch.float64)
        fields = torch.unflatten(x, 1, (self.inputs, ORDER))
        filters = weights.reshape(self.outputs, self.inputs, ORDER, *(self.kernel,) * 3)
        copies = []
        for element in elements:
            back = element.T[None]
            # (g^-1 f)(h, r) = f(g h, g r).
            order = torch.cdist((element @ elements).flatten(1), elements.flatten(1)).argmin(1)
            turned = permute_grid(fields[:, :, order].flatten(1, 2), back.expand(len(x), 3, 3))
            out = dense_convolution(turned, filters.flatten(1, 2))
            copies.append(permute_grid(out, element[None].expand(len(x), 3, 3)))
        return torch.stack(copies, dim=2).flatten(1, 2)

    def work(self, sizes: Sizes) -> tuple[int, int, int]:
        """That of the dense convolution with the expanded filters."""
        reach = self.kernel // 2
        return dense_work(sizes, ORDER * self.inputs, ORDER * self.outputs, offsets_within(reach))


# What the voxel convolutions share.


def offsets_within(reach: int) -> list[Offset]:
    """Those of a cube of voxels with so many on each side of its centre."""
    return list(product(range(-reach, reach + 1), repeat=3))


def dense_work(
    sizes: Sizes, inputs: int, outputs: int, offsets: Sequence[Offset]
) -> tuple[int, int, int]:
    """Of a dense convolution whose kernel is expanded from its weights and is not zero at these
    ``offsets``; what would be multiplied by the zeros around the grid is no work."""
    samples, size, channels = sizes["samples"], sizes["size"], inputs * outputs
    pairs = sum(math.prod(max(0, size - abs(step)) for step in offset) for offset in offsets)
    return samples * size**3 * outputs, channels * len(offsets), 2 * samples * channels * pairs


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


CASES = (
    Case(
        "cube-voxels-2",
        CubeConvolution(2, 2, 3),
        {"samples": 2, "size": 8},
        1,
        "the voxel task's cube-group network at a coarse level",
        quick=True,
    ),
    Case(
        "cube-voxels-4",
        CubeConvolution(4, 4, 3),
        {"samples": 1, "size": 24},
        1,
        "the voxel task's cube-group network at its finest level",
    ),
)
