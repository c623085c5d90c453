"""The voxel convolution between features that the cube's rotations permute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from equivbench.kernels.operations.base import Case, Costs, Operation, Sizes
from equivbench.kernels.operations.dense_grids import dense_convolution, dense_passes

if TYPE_CHECKING:
    from torch import Generator, Tensor

ORDER = 24
"""Rotations of the cube."""


@dataclass(frozen=True)
class CubeConvolution(Operation):
    """A convolution between features in the regular representation of the cube's 24 rotations
    (Cohen & Welling 2016).

    out(g, r) = sum_h sum_s w(g^-1 h, g^-1 s) f(h, r + s), rotations in the order of
    ``octahedral_rotations``, offsets s on the kernel's odd grid; zero padding.

    Inputs: ``x`` [samples, 24 inputs, size, size, size], feature by feature, 24 copies each;
    ``weights`` [outputs, inputs, 24 kernel^3]. Output: [samples, 24 outputs, size, size, size].
    """

    name: ClassVar[str] = "cube-convolution"
    differentiable: ClassVar[tuple[str, ...]] = ("x", "weights")

    inputs: int
    outputs: int
    kernel: int

    def draw(self, sizes: Sizes, generator: Generator) -> dict[str, Tensor]:
        """Normal numbers, weights scaled by the taps that come together."""
        from equivbench.kernels.operations.drawing import normal

        taps, grid = ORDER * self.kernel**3, (sizes["size"],) * 3
        x = normal(generator, sizes["samples"], ORDER * self.inputs, *grid)
        weights = normal(generator, self.outputs, self.inputs, taps)
        return {"x": x, "weights": weights * (taps * self.inputs) ** -0.5}

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

    def passes(self, sizes: Sizes, itemsize: int) -> tuple[Costs, ...]:
        """Those of the dense convolution with the expanded filters."""
        weights = self.inputs * self.outputs * ORDER * self.kernel**3
        return dense_passes(
            sizes, itemsize, ORDER * self.inputs, ORDER * self.outputs, weights, self.kernel
        )


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
