"""References of the voxel convolutions: kernels offset by offset, and grids turned in place of
filters."""

from __future__ import annotations

import math
from itertools import product

import torch
from e3nn import o3
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from equivbench.kernels.grid_operations import CubeConvolution, SteerableConvolution
from equivbench.kernels.references.convolution import coupling
from equivbench.symmetry.grids import permute_grid
from equivbench.symmetry.rotations import octahedral_rotations


def steerable_convolution(operation: SteerableConvolution, x: Tensor, weights: Tensor) -> Tensor:
    """A dense matrix for one offset after the other."""
    steps = range(-operation.reach, operation.reach + 1)
    matrices = []
    for offset in product(steps, repeat=3):
        vector = x.new_tensor(offset)
        matrices.append(
            _matrix(
                operation, vector, x.new_tensor(_radial(operation, math.hypot(*offset))) @ weights
            )
        )
    kernel = torch.unflatten(torch.stack(matrices, dim=2), 2, (len(steps),) * 3)
    return _convolved(x, kernel)


def _radial(operation: SteerableConvolution, distance: float) -> list[float]:
    """R_1, R_2, ... at ``distance``."""
    step = operation.diameter / 2 / (operation.radial + 1)
    offsets = [distance / step - number for number in range(1, operation.radial + 1)]
    return [1.14136 * math.exp(2 - 2 / (1 - one**2)) if abs(one) < 1 else 0.0 for one in offsets]


def _matrix(operation: SteerableConvolution, vector: Tensor, weights: Tensor) -> Tensor:
    """[outputs, inputs] of one offset, from its weights [sum_p inputs_p outputs_p]."""
    rows = []
    parts = torch.split(
        weights,
        [
            operation.inputs[path.source] * operation.outputs[path.target]
            for path in operation.paths
        ],
    )
    for target, outputs in enumerate(operation.outputs):
        blocks = []
        for source, inputs in enumerate(operation.inputs):
            block = weights.new_zeros(2 * target + 1, outputs, 2 * source + 1, inputs)
            for path, part in zip(operation.paths, parts, strict=True):
                if (path.source, path.target) == (source, target):
                    harmonics = o3.spherical_harmonics(
                        path.edge, vector, normalize=True, normalization="component"
                    )
                    factor = coupling(path).to(vector) @ harmonics
                    block = block + torch.einsum("ts,uv->tvsu", factor, part.view(inputs, outputs))
            blocks.append(block.reshape((2 * target + 1) * outputs, (2 * source + 1) * inputs))
        rows.append(torch.cat(blocks, dim=1))
    return torch.cat(rows)


def cube_convolution(operation: CubeConvolution, x: Tensor, weights: Tensor) -> Tensor:
    """Each copy of the output from the grid turned back, by the filter as it is: out(g) = g (w *
    g^-1 f)."""
    elements = octahedral_rotations(torch.float64)
    fields = torch.unflatten(x, 1, (operation.inputs, 24))
    filters = weights.reshape(operation.outputs, operation.inputs, 24, *(operation.kernel,) * 3)
    copies = []
    for element in elements:
        back = element.T[None]
        # (g^-1 f)(h, r) = f(g h, g r).
        order = torch.cdist((element @ elements).flatten(1), elements.flatten(1)).argmin(1)
        turned = permute_grid(fields[:, :, order].flatten(1, 2), back.expand(len(x), 3, 3))
        out = _convolved(turned, filters.flatten(1, 2))
        copies.append(permute_grid(out, element[None].expand(len(x), 3, 3)))
    return torch.stack(copies, dim=2).flatten(1, 2)


def _convolved(x: Tensor, kernel: Tensor) -> Tensor:
    """One matrix product of all windows, a sample at a time: torch's own float64 convolution is a
    hundred times as slow."""
    # Windows are made again for the gradient: kept, they would be as many grids as the kernel has
    # voxels.
    return torch.stack(
        [checkpoint(_of_windows, sample, kernel, use_reentrant=False) for sample in x]
    )


def _of_windows(sample: Tensor, kernel: Tensor) -> Tensor:
    reach = kernel.shape[-1] // 2
    windows = functional.pad(sample, (reach,) * 6)
    for axis in (1, 2, 3):
        windows = windows.unfold(axis, kernel.shape[-1], 1)
    return torch.einsum("oijkl,ixyzjkl->oxyz", kernel, windows)
