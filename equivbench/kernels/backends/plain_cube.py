"""The cube-group voxel convolution in plain torch: the filters are expanded, then one dense
convolution runs."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from equivbench.kernels.backend import Kernel, Tensors
from equivbench.kernels.grid_operations import CubeConvolution
from equivbench.symmetry.grids import permute_grid
from equivbench.symmetry.rotations import octahedral_rotations

ORDER = 24
"""Rotations of the cube."""
Kind = Literal["lift", "group", "project"]


def cube_places(kernel: int, copies: int) -> Tensor:
    """[24 g, (24 h,) k^3] int64: of bank entry (g, h, s), the place of (g^-1 h, g^-1 s) in a filter
    [copies, k^3]."""
    elements = octahedral_rotations(torch.float64)
    voxels = (
        torch.arange(kernel**3).reshape(1, 1, kernel, kernel, kernel).expand(ORDER, -1, -1, -1, -1)
    )
    moved = permute_grid(voxels, elements).reshape(ORDER, kernel**3)
    if copies == 1:
        return moved
    relative = torch.einsum("gji,hjk->ghik", elements, elements)
    table = (
        torch.cdist(relative.flatten(2).flatten(0, 1), elements.flatten(1))
        .argmin(1)
        .reshape(ORDER, ORDER)
    )
    return table[:, :, None] * kernel**3 + moved[:, None, :]


def cube_bank(weight: Tensor, place: Tensor, kernel: int, kind: Kind) -> Tensor:
    """Filters [first, second, copies k^3] expanded by :func:`cube_places` to the weights of a plain
    convolution."""
    first, second, cube = weight.shape[0], weight.shape[1], (kernel,) * 3
    filters = weight.index_select(2, place.flatten())
    if kind == "group":
        bank = filters.view(first, second, ORDER, ORDER, -1).permute(0, 2, 1, 3, 4)
        return bank.reshape(ORDER * first, ORDER * second, *cube)
    if kind == "lift":
        bank = filters.view(first, second, ORDER, -1).permute(0, 2, 1, 3)
        return bank.reshape(ORDER * first, second, *cube)
    return filters.view(first, ORDER * second, *cube)


def cube_kernel(operation: CubeConvolution, *, dtype: torch.dtype, device: torch.device) -> Kernel:
    """The cube-group network's convolution."""
    place = cube_places(operation.kernel, ORDER).to(device)
    padding = (operation.kernel - 1) // 2

    def run(inputs: Tensors) -> Tensor:
        bank = cube_bank(inputs["weights"], place, operation.kernel, "group")
        return functional.conv3d(inputs["x"], bank, padding=padding)

    return Kernel(run, "torch conv3d")
