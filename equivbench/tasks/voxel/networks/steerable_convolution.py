"""e3nn's voxel convolution with its kernel expanded by one matrix product for each pair of
degrees."""

from __future__ import annotations

import math

import torch
from e3nn import o3
from e3nn.math import soft_one_hot_linspace
from jaxtyping import Float
from torch import Tensor, nn


class SteerableConvolution(nn.Module):
    """``e3nn.nn.models.v2104.voxel_convolution.Convolution``, the same functions with the same
    initial distribution.

    A kernel is a sum over radial functions times spherical harmonics times Clebsch-Gordan
    coefficients, and a linear map of the voxel itself, which here is the kernel's centre. All but
    the weights is tabulated: e3nn's own layer spends a quarter of a training step on the hundreds
    of small operations that expand its kernels and on a second pass over the grid.

    Parameters
    ----------
    irreps, out
        Of parity (-1)^l, in any order.
    lmax
        Largest degree of the kernel's harmonics.
    diameter
        Of the kernel, in voxels.
    radial
        Number of its radial functions.
    """

    order: Tensor
    order_out: Tensor
    """[dim] int64: where each component stands once its irreps are sorted by degree."""

    def __init__(
        self, irreps: o3.Irreps, out: o3.Irreps, lmax: int, diameter: float, radial: int
    ) -> None:
        super().__init__()
        self.copies, self.copies_out = _by_degree(irreps), _by_degree(out)
        reach = math.floor(diameter / 2)
        line = torch.arange(-reach, reach + 1, dtype=torch.float64)
        self.size = len(line)
        lattice = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), dim=-1).reshape(
            -1, 3
        )
        bumps = soft_one_hot_linspace(
            lattice.norm(dim=-1), 0.0, diameter / 2, radial, basis="smooth_finite", cutoff=True
        )
        bumps = bumps / len(lattice)
        centre = (lattice == 0).all(dim=1).double()
        # Lists of weights and tables go by target, then source; of functions by path, then the
        # voxel itself.
        self.counts: list[int] = []
        for target in self.copies_out:
            fan_in = sum(
                copies * len(_paths(source, target, lmax)) for source, copies in self.copies.items()
            )
            for source in self.copies:
                functions = [
                    math.sqrt((2 * target + 1) / fan_in) * table
                    for table in _tables(source, target, lmax, lattice, bumps)
                ]
                if source == target:
                    itself = (
                        torch.eye(2 * target + 1, dtype=torch.float64)[None, :, :, None] * centre
                    )
                    functions.append(itself / math.sqrt(self.copies[source]))
                table = (
                    torch.cat(functions)
                    if functions
                    else lattice.new_zeros(0, 2 * target + 1, 2 * source + 1, len(lattice))
                )
                self.register_buffer(
                    f"table_{target}_{source}", table.flatten(1).float(), persistent=False
                )
                self.counts.append(len(table) * self.copies_out[target] * self.copies[source])
        self.register_buffer("order", _places(irreps), persistent=False)
        self.register_buffer("order_out", _places(out), persistent=False)
        self.weight = nn.Parameter(torch.randn(sum(self.counts)))

    def kernel(self) -> Float[Tensor, "out in size size size"]:
        """[out, in, size, size, size], in the irreps' order."""
        weights = iter(torch.split(self.weight, self.counts))
        rows = []
        for target, copies_out in self.copies_out.items():
            row = []
            for source, copies in self.copies.items():
                table: Tensor = getattr(self, f"table_{target}_{source}")
                block = next(weights).view(copies_out * copies, -1) @ table
                shape = (copies_out, copies, 2 * target + 1, 2 * source + 1, self.size**3)
                row.append(block.view(shape).transpose(1, 2).flatten(2, 3).flatten(0, 1))
            rows.append(torch.cat(row, dim=1))
        kernel = torch.cat(rows)[self.order_out][:, self.order]
        cubes: Tensor = kernel.unflatten(2, (self.size,) * 3)
        return cubes

    def forward(self, x: Float[Tensor, "samples in x y z"]) -> Float[Tensor, "samples out x y z"]:
        """Zeros beyond the faces."""
        return nn.functional.conv3d(x, self.kernel(), padding=self.size // 2)


def _by_degree(irreps: o3.Irreps) -> dict[int, int]:
    """Copies of each degree, in rising order."""
    degrees = sorted({irrep.l for _, irrep in irreps})
    return {
        degree: sum(copies for copies, irrep in irreps if irrep.l == degree) for degree in degrees
    }


def _places(irreps: o3.Irreps) -> Tensor:
    """[dim] int64: where each component of ``irreps`` stands once they are sorted by degree."""
    components = torch.cat([torch.full((part.dim,), part.ir.l) for part in irreps])
    return torch.argsort(torch.argsort(components, stable=True))


def _paths(source: int, target: int, lmax: int) -> list[int]:
    """Degrees of the harmonics that take ``source`` to ``target`` and keep parity (-1)^l."""
    return list(range(abs(source - target), min(source + target, lmax) + 1, 2))


def _tables(source: int, target: int, lmax: int, lattice: Tensor, bumps: Tensor) -> list[Tensor]:
    """[radial, 2 target + 1, 2 source + 1, voxels] of each path, float64."""
    tables = []
    for degree in _paths(source, target, lmax):
        harmonics = o3.spherical_harmonics(
            degree, lattice, normalize=True, normalization="component"
        )
        wigner = o3.wigner_3j(source, degree, target, dtype=torch.float64)
        tables.append(torch.einsum("sht,vh,vr->rtsv", wigner, harmonics, bumps))
    return tables
