"""Convolutions on voxel grids, as operations. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from equivbench.kernels.operations import Operation, Path


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

    name: ClassVar[str] = "steerable-convolution"
    differentiable: ClassVar[tuple[str, ...]] = ("x", "weights")

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    edge_lmax: int
    diameter: float
    """In voxels."""
    radial: int

    @property
    def paths(self) -> tuple[Path, ...]:
        """Ordered by source, edge and target degree."""
        return tuple(
            Path(source, edge, target)
            for source in range(len(self.inputs))
            for edge in range(self.edge_lmax + 1)
            for target in range(abs(source - edge), min(source + edge, len(self.outputs) - 1) + 1)
            if (source + edge + target) % 2 == 0
        )

    @property
    def reach(self) -> int:
        """Voxels from the centre of a kernel to its face."""
        return int(self.diameter / 2)


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
