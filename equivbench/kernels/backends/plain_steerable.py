"""The SO(3)-steerable voxel convolution in plain torch: the kernel is expanded, then one dense
convolution runs."""

from __future__ import annotations

import torch
from e3nn import o3
from torch import Tensor
from torch.nn import functional

from equivbench.kernels.backend import Kernel, Tensors
from equivbench.kernels.grid_operations import SteerableConvolution


def steerable_kernel(
    operation: SteerableConvolution, *, dtype: torch.dtype, device: torch.device
) -> Kernel:
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
        wigner = (
            o3.wigner_3j(path.target, path.source, path.edge, dtype=torch.float64)
            * (2 * path.target + 1) ** 0.5
        )
        fixed.append(
            torch.einsum("tse,xyze,xyzk->ktsxyz", wigner, harmonics, basis).to(
                dtype=dtype, device=device
            )
        )
    sizes = [
        operation.inputs[path.source] * operation.outputs[path.target] for path in operation.paths
    ]

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
