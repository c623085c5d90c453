"""A U-Net of e3nn's voxel convolutions between isotropic filters: exact on the cube group, SO(3) as
the grid resolves it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from e3nn import o3
from e3nn.math import soft_one_hot_linspace
from jaxtyping import Float
from torch import Tensor, nn

from equivbench.errors import UsageError
from equivbench.tasks.voxel.networks.spectrum import LowPass, Oversampled, Resample
from equivbench.tasks.voxel.networks.unet import HEAD_SCALE, UNet
from equivbench.tasks.voxel.table import ELEMENTS


class SteerableConv3d(nn.Module):
    """``e3nn.nn.models.v2104.voxel_convolution.Convolution``, the same functions with the same
    initial distribution, and the kernel expanded by one matrix product for each pair of degrees.

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


class IrrepNorm(nn.Module):
    """Each irrep divided by its root mean square length over voxels and copies; scalars are first
    centred.

    Statistics are invariants of a whole sample, weights one a copy, shared by its 2l + 1
    components.
    """

    def __init__(self, irreps: o3.Irreps) -> None:
        super().__init__()
        self.irreps = irreps
        self.weight = nn.Parameter(torch.ones(irreps.num_irreps))
        self.bias = nn.Parameter(
            torch.zeros(sum(multiplicity for multiplicity, irrep in irreps if irrep.l == 0))
        )

    def forward(self, x: Tensor) -> Tensor:
        """[samples, irreps, size, size, size]."""
        weights = torch.split(self.weight, [multiplicity for multiplicity, _ in self.irreps])
        biases = iter(
            torch.split(
                self.bias, [multiplicity for multiplicity, irrep in self.irreps if irrep.l == 0]
            )
        )
        out = []
        for part, weight, (_, irrep) in zip(
            torch.split(x, [part.dim for part in self.irreps], dim=1),
            weights,
            self.irreps,
            strict=True,
        ):
            copies = torch.unflatten(part, 1, (-1, irrep.dim))
            if irrep.l == 0:
                copies = copies - copies.mean(dim=(1, 2, 3, 4, 5), keepdim=True)
            scale = (copies.square().mean(dim=(1, 2, 3, 4, 5), keepdim=True) + 1e-5).rsqrt()
            copies = copies * (scale * weight[:, None, None, None, None])
            if irrep.l == 0:
                copies = copies + next(biases)[:, None, None, None, None]
            out.append(copies.flatten(1, 2))
        return torch.cat(out, dim=1)


class NormGate(nn.Module):
    """SiLU of scalars; other irreps times a sigmoid of sqrt(1 + length^2), with a learned slope and
    offset a copy.

    The length itself has a cusp at zero, so a gate by it has harmonics of every order, which the
    grid folds back; this root is smooth on the scale of normalised features.
    """

    def __init__(self, irreps: o3.Irreps) -> None:
        super().__init__()
        self.irreps = irreps
        gated = sum(multiplicity for multiplicity, irrep in irreps if irrep.l > 0)
        self.slope, self.offset = nn.Parameter(torch.ones(gated)), nn.Parameter(torch.zeros(gated))

    def forward(self, x: Tensor) -> Tensor:
        """[samples, irreps, size, size, size]."""
        counts = [multiplicity for multiplicity, irrep in self.irreps if irrep.l > 0]
        gates = iter(
            zip(torch.split(self.slope, counts), torch.split(self.offset, counts), strict=True)
        )
        out = []
        for part, (_, irrep) in zip(
            torch.split(x, [part.dim for part in self.irreps], dim=1), self.irreps, strict=True
        ):
            if irrep.l == 0:
                out.append(nn.functional.silu(part))
                continue
            slope, offset = next(gates)
            copies = torch.unflatten(part, 1, (-1, irrep.dim))
            length = (copies.square().sum(dim=2, keepdim=True) + 1).sqrt()
            gate = torch.sigmoid(
                length * slope[:, None, None, None, None] + offset[:, None, None, None, None]
            )
            out.append((copies * gate).flatten(1, 2))
        return torch.cat(out, dim=1)


class LastActivation(nn.Module):
    """SiLU of the scalars, oversampled; other irreps pass, for the head to take their gradients,
    divergences and the like.

    What a nonlinearity folds back here goes straight into the outputs: without oversampling the
    trained network's equivariance error is twice as large. For scalars alone it costs a third of
    what it would for a gate of all irreps.
    """

    def __init__(self, irreps: o3.Irreps) -> None:
        super().__init__()
        self.scalars = irreps.count("0e")
        self.activation = Oversampled(nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        """[samples, irreps, size, size, size], the scalars first."""
        return torch.cat([self.activation(x[:, : self.scalars]), x[:, self.scalars :]], dim=1)


class Mix(nn.Module):
    """e3nn's linear map of irreps at each voxel."""

    def __init__(self, irreps: o3.Irreps, out: o3.Irreps) -> None:
        super().__init__()
        self.linear = o3.Linear(irreps, out)

    def forward(self, x: Tensor) -> Tensor:
        """[samples, irreps, size, size, size]."""
        mixed: Tensor = self.linear(x.movedim(1, -1)).movedim(-1, 1)
        return mixed


@dataclass(frozen=True)
class SteerableLayers:
    """e3nn's layers; a width is a direct sum of irreps, ``channels`` copies of each degree times
    ``copies``."""

    copies: tuple[int, ...]
    """Copies of l = 0, 1, 2, ... at multiple 1."""
    diameter: float
    """Of the kernels, in voxels of the level."""
    radial: int
    """Radial basis functions of the kernels."""

    def width(self, multiple: int) -> o3.Irreps:
        """Irreps of parity (-1)^l, as spherical harmonics have it."""
        return o3.Irreps(
            [
                (multiple * copies, (degree, (-1) ** degree))
                for degree, copies in enumerate(self.copies)
                if copies
            ]
        )

    def joined(self, first: o3.Irreps, second: o3.Irreps) -> o3.Irreps:
        """One after the other."""
        return first + second

    def stem(self, out: o3.Irreps) -> nn.Module:
        """Elements, which are scalars, to irreps, without the corners of the noise's spectrum."""
        return nn.Sequential(LowPass(), self.conv(o3.Irreps([(len(ELEMENTS), (0, 1))]), out))

    def head(self, width: o3.Irreps) -> nn.Module:
        """Irreps to scalars, with small weights; the corners of the spectrum stay empty."""
        head = self.conv(width, o3.Irreps([(len(ELEMENTS), (0, 1))]))
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.mul_(HEAD_SCALE)
        return nn.Sequential(head, LowPass())

    def norm(self, width: o3.Irreps) -> nn.Module:
        """By irrep."""
        return IrrepNorm(width)

    def activation(self, width: o3.Irreps) -> nn.Module:
        """Gated by length."""
        return NormGate(width)

    def last_activation(self, width: o3.Irreps) -> nn.Module:
        """Of scalars, oversampled."""
        return LastActivation(width)

    def conv(self, width: o3.Irreps, out: o3.Irreps) -> nn.Module:
        """e3nn's convolution: kernels of a radial basis times spherical harmonics, and a linear map
        of the voxel itself."""
        return SteerableConv3d(width, out, len(self.copies) - 1, self.diameter, self.radial)

    def mix(self, width: o3.Irreps, out: o3.Irreps) -> nn.Module:
        """e3nn's linear map."""
        return Mix(width, out)

    def down(self, width: o3.Irreps) -> nn.Module:
        """What the coarser grid resolves."""
        return Resample(1 / 2)

    def up(self, width: o3.Irreps) -> nn.Module:
        """The same field on the finer grid."""
        return Resample(2)

    def attention(self, width: o3.Irreps) -> nn.Module:
        """None."""
        raise UsageError(
            "the steerable U-Net has no attention; set attention to false at every level"
        )


def build(config: Mapping[str, Any]) -> UNet[o3.Irreps]:
    """Config: ``copies`` by degree, ``diameter`` (voxels), ``radial``, and ``mults`` and ``blocks``
    by level."""
    mults = config["mults"]
    layers = SteerableLayers(tuple(config["copies"]), config["diameter"], config["radial"])
    return UNet(layers, mults, config["blocks"], [False] * len(mults))
