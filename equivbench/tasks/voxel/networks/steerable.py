"""A U-Net of e3nn's voxel convolutions between isotropic low-pass filters of Fourier series: exact
on the cube group, SO(3) as the grid resolves it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from e3nn import o3
from e3nn.math import soft_one_hot_linspace
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn

from equivbench.kernels.backends.plain.grids import laid_out
from equivbench.tasks.voxel.networks.unet import Layers, UNet, small
from equivbench.tasks.voxel.table import ELEMENTS

Grids = Float[Tensor, "samples channels size size size"]


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
        """[out, in, size, size, size], in the irreps' order; in memory as the grids."""
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
        return laid_out(kernel.unflatten(2, (self.size,) * 3))

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


Parts = list[tuple[int, int]]
"""(copies, degree) of irreps: torch.compile does not trace e3nn's ``Irreps``."""


def _parts(irreps: o3.Irreps) -> Parts:
    return [(copies, irrep.l) for copies, irrep in irreps]


def _copies(x: Tensor, parts: Parts) -> list[tuple[int, Tensor]]:
    """(degree, [samples, copies, components, size, size, size]) of each of the ``parts`` of
    ``x``."""
    grids = torch.split(x, [copies * (2 * degree + 1) for copies, degree in parts], dim=1)
    return [
        (degree, grid.unflatten(1, (copies, 2 * degree + 1)))
        for grid, (copies, degree) in zip(grids, parts, strict=True)
    ]


def _by_irrep(weight: Tensor, counts: list[int]) -> Iterator[Tensor]:
    """[copies, 1, 1, 1, 1] of one irrep after another."""
    return iter(weight.view(-1, 1, 1, 1, 1).split(counts))


class IrrepNorm(nn.Module):
    """Each irrep divided by its root mean square length over voxels and copies; scalars are first
    centred.

    Statistics are invariants of a whole sample, weights one a copy, shared by its 2l + 1
    components.
    """

    def __init__(self, irreps: o3.Irreps) -> None:
        super().__init__()
        self.parts = _parts(irreps)
        self.scalars = [copies for copies, degree in self.parts if degree == 0]
        self.weight = nn.Parameter(torch.ones(irreps.num_irreps))
        self.bias = nn.Parameter(torch.zeros(sum(self.scalars)))

    def forward(self, x: Tensor) -> Tensor:
        """[samples, irreps, size, size, size]."""
        weights = _by_irrep(self.weight, [copies for copies, _ in self.parts])
        biases = _by_irrep(self.bias, self.scalars)
        out = []
        for degree, copies in _copies(x, self.parts):
            if degree == 0:
                copies = copies - copies.mean(dim=(1, 2, 3, 4, 5), keepdim=True)
            scale = (copies.square().mean(dim=(1, 2, 3, 4, 5), keepdim=True) + 1e-5).rsqrt()
            copies = copies * (scale * next(weights))
            out.append((copies + next(biases) if degree == 0 else copies).flatten(1, 2))
        return torch.cat(out, dim=1)


class NormGate(nn.Module):
    """SiLU of scalars; other irreps times a sigmoid of sqrt(1 + length^2), with a learned slope and
    offset a copy.

    The length itself has a cusp at zero, so a gate by it has harmonics of every order, which the
    grid folds back; this root is smooth on the scale of normalised features.
    """

    def __init__(self, irreps: o3.Irreps) -> None:
        super().__init__()
        self.parts = _parts(irreps)
        self.gated = [copies for copies, degree in self.parts if degree > 0]
        gated = sum(self.gated)
        self.slope, self.offset = nn.Parameter(torch.ones(gated)), nn.Parameter(torch.zeros(gated))

    def forward(self, x: Tensor) -> Tensor:
        """[samples, irreps, size, size, size]."""
        slopes, offsets = (_by_irrep(each, self.gated) for each in (self.slope, self.offset))
        out = []
        for degree, copies in _copies(x, self.parts):
            if degree == 0:
                copies = nn.functional.silu(copies)
            else:
                length = (copies.square().sum(dim=2, keepdim=True) + 1).sqrt()
                copies = copies * torch.sigmoid(length * next(slopes) + next(offsets))
            out.append(copies.flatten(1, 2))
        return torch.cat(out, dim=1)


class Resample(nn.Module):
    """The same field, as far as the coarser grid's ball of frequencies holds it, on narrower or
    wider voxels.

    With factor 1 a low-pass filter: it keeps the ball of frequencies below Nyquist's; the corners
    of the band hold half the modes of white noise, in directions that no rotation off the cube
    group carries into one another. Sampled exactly at the new centres, for grids have their centre
    in common and not their first voxel. It commutes with shifts and rotations that keep the ball;
    means of 2^3 voxels and trilinear interpolation do so at low frequencies only.

    Parameters
    ----------
    factor
        New size over old, rounded to a whole number of voxels.
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Grids) -> Float[Tensor, "samples channels new new new"]:
        """[samples, channels, new, new, new] in ``x``'s dtype; computed in at least float32."""
        return resample(x, round(x.shape[-1] * self.factor))

    def extra_repr(self) -> str:
        """For ``print``."""
        return f"factor={self.factor}"


class Oversampled(nn.Module):
    """A nonlinearity of each voxel, on a finer grid: what it makes beyond the band is left out, not
    folded back.

    At 4/3 of the size that is so for frequencies up to 5/3 of the band, which holds nearly all of
    the product of two fields; Orszag's rule (1971), 3/2, holds all, and costs 42% more voxels for
    4% less of the trained network's equivariance error.
    """

    def __init__(self, nonlinearity: nn.Module) -> None:
        super().__init__()
        self.nonlinearity = nonlinearity

    def forward(self, x: Grids) -> Float[Tensor, "samples out size size size"]:
        """[samples, out, size, size, size]."""
        size = x.shape[-1]
        return resample(self.nonlinearity(resample(x, round(size * 4 / 3))), size)


def resample(x: Grids, size: int) -> Float[Tensor, "samples channels {size} {size} {size}"]:
    """``x`` on ``size``^3 voxels of the same box, as far as the coarser grid's ball of frequencies
    holds it."""
    old = x.shape[-1]
    largest = (min(old, size) - 1) // 2
    k = torch.arange(-largest, largest + 1, device=x.device)
    half = torch.arange(largest + 1, device=x.device)
    # [modes, 3] of those that real fields need, k_z >= 0. In turns a box: integers, so that whether
    # one lies in the ball is no matter of rounding.
    k = torch.stack(torch.meshgrid(k, k, half, indexing="ij"), dim=-1).reshape(-1, 3)
    # A mask, for a number of modes that depended on values would break compiled graphs.
    inside = 4 * k.square().sum(-1) < min(old, size) ** 2
    wide = x if x.dtype == torch.float64 else x.float()
    spectrum = torch.fft.rfftn(wide, dim=(2, 3, 4), norm="forward").flatten(2)
    modes = spectrum[:, :, _modes_of(k, old)] * (_origin(k, old, wide.dtype).conj() * inside)
    new = modes.new_zeros(*modes.shape[:2], size * size * (size // 2 + 1)).index_copy(
        2, _modes_of(k, size), modes * _origin(k, size, wide.dtype)
    )
    field: Tensor = torch.fft.irfftn(
        new.unflatten(2, (size, size, size // 2 + 1)), s=(size,) * 3, dim=(2, 3, 4), norm="forward"
    )
    return field.to(x.dtype)


def _modes_of(k: Tensor, n: int) -> Int[Tensor, " modes"]:
    """Of each frequency in what ``rfftn`` of n^3 voxels gives, flattened."""
    x, y, z = k.unbind(1)
    return ((x % n) * n + y % n) * (n // 2 + 1) + z


def _origin(k: Tensor, n: int, dtype: torch.dtype) -> Complex[Tensor, " modes"]:
    """exp(2 pi i k.r0 / box), r0 the centre of the first of n^3 voxels, from the grid's centre."""
    turns = k.sum(1).to(dtype) * (-torch.pi * (n - 1) / n)
    return torch.polar(torch.ones_like(turns), turns)


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


def steerable_layers(copies: Sequence[int], diameter: float, radial: int) -> Layers:
    """e3nn's layers; a width is a direct sum of irreps of parity (-1)^l, as spherical harmonics
    have it.

    Parameters
    ----------
    copies
        Of l = 0, 1, 2, ... at multiple 1.
    diameter
        Of the kernels, in voxels of the level.
    radial
        Radial basis functions of the kernels.
    """
    elements = o3.Irreps([(len(ELEMENTS), (0, 1))])

    def width(multiple: int) -> o3.Irreps:
        return o3.Irreps(
            [(multiple * n, (degree, (-1) ** degree)) for degree, n in enumerate(copies) if n]
        )

    def conv(width: o3.Irreps, out: o3.Irreps) -> nn.Module:
        return SteerableConv3d(width, out, len(copies) - 1, diameter, radial)

    # The corners of the noise's spectrum go, and stay empty.
    return Layers(
        width=width,
        stem=lambda out: nn.Sequential(Resample(1), conv(elements, out)),
        head=lambda width: nn.Sequential(small(conv(width, elements)), Resample(1)),
        norm=IrrepNorm,
        activation=NormGate,
        last_activation=LastActivation,
        conv=conv,
        mix=Mix,
        down=lambda width: Resample(1 / 2),
        up=lambda width: Resample(2),
    )


def build(config: Mapping[str, Any]) -> UNet:
    """Config: ``copies`` by degree, ``diameter`` (voxels), ``radial``, and ``mults`` and ``blocks``
    by level."""
    mults = config["mults"]
    layers = steerable_layers(config["copies"], config["diameter"], config["radial"])
    return UNet(layers, mults, config["blocks"], [False] * len(mults))
