"""The voxel convolution with an SO(3)-steerable kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from equivbench.kernels.operations.base import Case, Drawn, Operation, Sizes
from equivbench.kernels.operations.cube_convolution import (
    dense_convolution,
    dense_work,
    offsets_within,
)
from equivbench.kernels.operations.paths import Path, coupling, features, triangle_paths

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SteerableConvolution(Operation):
    """out(r) = sum over offsets s of K(s) x(r + s), K an SO(3)-steerable kernel (Weiler et al.
    2018, 1807.02547).

    K(s)_tv,su = sum over paths and radial functions k of w_k,p,u,v R_k(|s|) [C_p Y(s)]_t,s: R_k(d)
    = 1.14136 exp(2 - 2 / (1 - t^2)) for |t| < 1, t = d / h - k, k = 1 ... radial, h = diameter / 2
    / (radial + 1), which is e3nn's ``smooth_finite`` basis; C_p as in
    :class:`equivbench.kernels.operations.Convolution`, paths of natural parity; at s = 0 only Y_0 =
    1 is not 0. The grid is padded with zeros.

    Inputs: ``x`` [samples, sum_l (2 l + 1) inputs_l, size, size, size]; ``weights`` [radial, sum_p
    inputs_p outputs_p], path after path, each [inputs, outputs]. Output: [samples, sum_l (2 l + 1)
    outputs_l, size, size, size].
    """

    name = "steerable-convolution"
    differentiable = ("x", "weights")

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    edge_lmax: int
    diameter: float
    """In voxels."""
    radial: int

    @property
    def paths(self) -> tuple[Path, ...]:
        """Ordered by source, edge and target degree."""
        return triangle_paths(len(self.inputs) - 1, self.edge_lmax, len(self.outputs) - 1)

    @property
    def weight_sizes(self) -> list[int]:
        """Weights of each path for one radial function."""
        return [self.inputs[path.source] * self.outputs[path.target] for path in self.paths]

    @property
    def reach(self) -> int:
        """Voxels from the centre of a kernel to its face."""
        return int(self.diameter / 2)

    def arguments(self, sizes: Sizes) -> dict[str, Drawn]:
        """Normal numbers, weights scaled by the features that come together."""
        rows = features(self.inputs)
        return {
            "x": Drawn((sizes["samples"], rows, *(sizes["size"],) * 3)),
            "weights": Drawn((self.radial, sum(self.weight_sizes)), scale=rows**-0.5),
        }

    def reference(self, x: Tensor, weights: Tensor) -> Tensor:
        """A dense matrix for one offset after the other."""
        import torch

        matrices = []
        for offset in offsets_within(self.reach):
            radial = x.new_tensor(self._radial_functions(math.hypot(*offset)))
            matrices.append(self._matrix(x.new_tensor(offset), radial @ weights))
        kernel = torch.unflatten(torch.stack(matrices, dim=2), 2, (2 * self.reach + 1,) * 3)
        return dense_convolution(x, kernel)

    def _radial_functions(self, distance: float) -> list[float]:
        """R_1, R_2, ... at ``distance``."""
        step = self.diameter / 2 / (self.radial + 1)
        offsets = [distance / step - number for number in range(1, self.radial + 1)]
        return [1.14136 * math.exp(2 - 2 / (1 - t**2)) if abs(t) < 1 else 0.0 for t in offsets]

    def _matrix(self, offset: Tensor, weights: Tensor) -> Tensor:
        """[outputs, inputs] of one offset, from its weights [sum_p inputs_p outputs_p]."""
        import torch
        from e3nn import o3

        rows = []
        parts = torch.split(weights, self.weight_sizes)
        for target, outputs in enumerate(self.outputs):
            blocks = []
            for source, inputs in enumerate(self.inputs):
                block = weights.new_zeros(2 * target + 1, outputs, 2 * source + 1, inputs)
                for path, part in zip(self.paths, parts, strict=True):
                    if (path.source, path.target) == (source, target):
                        harmonics = o3.spherical_harmonics(
                            path.edge, offset, normalize=True, normalization="component"
                        )
                        factor = coupling(path).to(offset) @ harmonics
                        block = block + torch.einsum(
                            "ts,uv->tvsu", factor, part.view(inputs, outputs)
                        )
                blocks.append(block.reshape((2 * target + 1) * outputs, (2 * source + 1) * inputs))
            rows.append(torch.cat(blocks, dim=1))
        return torch.cat(rows)

    def work(self, sizes: Sizes) -> tuple[int, int, int]:
        """That of the dense convolution with the expanded kernel, whose corners are zero."""
        offsets = [
            offset
            for offset in offsets_within(self.reach)
            if any(self._radial_functions(math.hypot(*offset)))
        ]
        return dense_work(sizes, features(self.inputs), features(self.outputs), offsets)


CASES = (
    Case(
        "steerable-voxels-8",
        SteerableConvolution((8, 4, 2), (8, 4, 2), 2, 5.0, 3),
        {"samples": 2, "size": 8},
        1,
        "the voxel task's steerable network at a coarse level",
        quick=True,
    ),
)
