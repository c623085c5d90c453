"""A U-Net of e3nn's voxel convolutions between isotropic filters: exact on the cube group, SO(3) as
the grid resolves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from e3nn import o3
from torch import Tensor, nn

from equivbench.errors import UsageError
from equivbench.tasks.voxel.grid import ELEMENTS
from equivbench.tasks.voxel.networks.plain import HEAD_SCALE
from equivbench.tasks.voxel.networks.skeleton import UNet
from equivbench.tasks.voxel.networks.spectrum import LowPass, Oversampled, Resample
from equivbench.tasks.voxel.networks.steerable_convolution import SteerableConvolution


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
        return SteerableConvolution(width, out, len(self.copies) - 1, self.diameter, self.radial)

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
