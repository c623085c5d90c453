"""The voxel convolutions in plain torch: the kernel is expanded from its weights, then one dense
convolution runs."""

from __future__ import annotations

from typing import Literal

import torch
from e3nn import o3
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.nn import functional

from equivbench.kernels.backend import Kernel, Tensors
from equivbench.kernels.operations import CubeConvolution, SteerableConvolution
from equivbench.kernels.operations.cube_convolution import ORDER
from equivbench.kernels.operations.paths import coupling
from equivbench.symmetry.grids import permute_grid
from equivbench.symmetry.rotations import octahedral_rotations

CubeLayer = Literal["lift", "group", "project"]
"""From a grid to the 24 copies, between copies, and from copies to a grid."""


def grid_layout(like: Tensor) -> torch.memory_format:
    """How grids [samples, channels, x, y, z] between convolutions lie in memory on the device of
    ``like``: on a CPU with their channels innermost, as its convolutions work on them, so that none
    of them turns its grids round; on a GPU, whose group normalisation knows no other, as usual."""
    return torch.channels_last_3d if like.device.type == "cpu" else torch.contiguous_format


def laid_out(grids: Tensor) -> Tensor:
    """``grids`` in that layout; inside ``torch.vmap``, which lays out its batches itself, as they
    are."""
    inside = not torch.compiler.is_compiling() and is_functorch_wrapped_tensor(grids)
    return grids if inside else grids.contiguous(memory_format=grid_layout(grids))


def map_voxels(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of grids ``x`` with a kernel of one voxel, ``weight`` [out, in, 1, 1, 1].

    A matrix product where channels lie innermost: torch's convolutions would turn the grids round
    for it with one thread and few samples.
    """
    if grid_layout(x) is torch.contiguous_format:
        return functional.conv3d(x, weight, bias)
    return functional.linear(x.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)


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


def cube_bank(weight: Tensor, place: Tensor, kernel: int, kind: CubeLayer) -> Tensor:
    """Filters [first, second, copies k^3] expanded by :func:`cube_places` to the weights of a plain
    convolution, in memory as the grids."""
    turns = ORDER if kind != "project" else 1
    copies = ORDER if kind != "lift" else 1
    first, second, cube = weight.shape[0], weight.shape[1], (kernel,) * 3
    filters = weight.index_select(2, place.flatten())
    bank = filters.view(first, second, turns, copies, -1).permute(0, 2, 4, 1, 3)
    innermost = bank.reshape(turns * first, *cube, copies * second).movedim(-1, 1)
    return laid_out(innermost)


def cube_kernel(operation: CubeConvolution, like: Tensor) -> Kernel:
    """The cube-group network's convolution."""
    place = cube_places(operation.kernel, ORDER).to(like.device)
    padding = (operation.kernel - 1) // 2

    def adapt(inputs: Tensors) -> Tensors:
        return {**inputs, "x": laid_out(inputs["x"])}

    def run(inputs: Tensors) -> Tensor:
        bank = cube_bank(inputs["weights"], place, operation.kernel, "group")
        return functional.conv3d(inputs["x"], bank, padding=padding)

    return Kernel(run, "torch conv3d", adapt)


def steerable_kernel(operation: SteerableConvolution, like: Tensor) -> Kernel:
    """The kernel as one matrix product a path: fixed functions of the offset times weights."""
    reach, half = operation.reach, operation.diameter / 2
    line = torch.arange(-reach, reach + 1, dtype=torch.float64)
    lattice = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), dim=-1)
    # e3nn's own function rounds a constant to the default dtype.
    offsets = lattice.norm(dim=-1, keepdim=True) * ((operation.radial + 1) / half) - torch.arange(
        1, operation.radial + 1
    )
    basis = torch.where(
        offsets.abs() < 1, 1.14136 * torch.exp(2 - 1 / (1 - offsets) - 1 / (1 + offsets)), 0.0
    )
    fixed = []
    for path in operation.paths:
        harmonics = o3.spherical_harmonics(
            path.edge, lattice, normalize=True, normalization="component"
        )
        functions = torch.einsum("tse,xyze,xyzk->ktsxyz", coupling(path), harmonics, basis)
        fixed.append(functions.to(like))
    sizes = operation.weight_sizes

    def run(inputs: Tensors) -> Tensor:
        blocks: dict[tuple[int, int], Tensor] = {}
        for path, functions, weights in zip(
            operation.paths, fixed, torch.split(inputs["weights"], sizes, dim=1), strict=True
        ):
            where = path.target, path.source
            pairs = weights.view(-1, operation.inputs[path.source], operation.outputs[path.target])
            block = torch.einsum("ktsxyz,kuv->tvsuxyz", functions, pairs)
            blocks[where] = blocks[where] + block if where in blocks else block
        rows = [
            torch.cat(
                [
                    blocks[target, source].flatten(2, 3).flatten(0, 1)
                    for source in range(len(operation.inputs))
                ],
                dim=1,
            )
            for target in range(len(operation.outputs))
        ]
        return functional.conv3d(inputs["x"], torch.cat(rows), padding=reach)

    return Kernel(run, "torch conv3d")
