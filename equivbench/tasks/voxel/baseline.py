"""The best isotropic linear denoiser: a Wiener filter for every spatial frequency, over all
channels at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from equivbench.symmetry.rotations import random_rotations
from equivbench.tasks.base import Split
from equivbench.tasks.voxel.grid import Grid
from equivbench.tasks.voxel.voxelise import voxelise

if TYPE_CHECKING:
    from equivbench.tasks.base import Task

BINS_PER_FREQUENCY = 2
"""Bins of |k| per 1 / box: fine against the width of an atom's spectrum, coarse enough to hold many
modes each."""
_FITTED_VOXELS = 2**23
"""Voxels that spectra are estimated from (600 molecules at 24^3, 32 at 64^3, more modes a bin
there)."""


class LinearDenoiser(nn.Module):
    """H(|k|) F[noisy](k) on a periodic grid, with one real matrix H [channels, channels] a bin of
    |k|.

    Being a function of |k| alone it commutes with every rotation of the grid, up to what a rotation
    interpolates.
    """

    filters: Tensor
    """[bins, channels, channels] float64."""

    def __init__(self, filters: Tensor) -> None:
        super().__init__()
        self.register_buffer("filters", filters)

    def forward(self, noisy: Tensor) -> dict[str, Tensor]:
        """``density`` [samples, channels, size, size, size] from ``noisy`` of the same shape."""
        size = noisy.shape[-1]
        spectrum = torch.fft.rfftn(noisy.double(), dim=(2, 3, 4))
        gains = self.filters.to(spectrum.dtype)[frequency_bins(size, noisy.device)]
        # [samples, x, y, z, channels, 1]: one small product a frequency.
        filtered = (gains @ spectrum.movedim(1, -1).unsqueeze(-1)).squeeze(-1).movedim(-1, 1)
        return {
            "density": torch.fft.irfftn(filtered, s=(size, size, size), dim=(2, 3, 4)).to(
                noisy.dtype
            )
        }


def frequency_bins(size: int, device: torch.device | str = "cpu") -> Tensor:
    """[size, size, size // 2 + 1] int64: the bin of |k| of each mode that ``rfftn`` gives."""
    k = torch.fft.fftfreq(size, 1 / size, device=device, dtype=torch.float64)
    half = torch.arange(size // 2 + 1, device=device, dtype=torch.float64)
    length: Tensor = (k[:, None, None] ** 2 + k[:, None] ** 2 + half**2).sqrt()
    return (length * BINS_PER_FREQUENCY).round().long()


def fit_linear_denoiser(task: Task, split: Split, seed: int) -> LinearDenoiser:
    """H = S (S + sigma^2)^-1 with S(|k|) the channels' cross spectra over ``split`` under random
    rotations.

    It minimises the expected squared error among the linear maps that commute with shifts and
    rotations.
    """
    generator = torch.Generator().manual_seed(seed)
    grid = Grid.of(*split.collate(torch.tensor([0]))["grid"][0].tolist())
    samples = min(len(split), max(_FITTED_VOXELS // grid.size**3, 1))
    order = torch.randperm(len(split), generator=generator)[:samples]
    rotations = random_rotations(samples, generator=generator, dtype=torch.float64)
    bins = frequency_bins(grid.size)
    # A mode stands for itself and its conjugate, except in the planes where the two coincide.
    multiplicity = torch.full(bins.shape, 2.0, dtype=torch.float64)
    multiplicity[..., 0] = 1
    if grid.size % 2 == 0:
        multiplicity[..., -1] = 1
    n_bins = int(bins.max()) + 1
    power: Tensor | None = None
    for part in torch.split(torch.arange(samples), 8):
        batch = split.collate(order[part])
        moved = task.rotate(batch, rotations[part], batch["batch"])
        density = voxelise(moved["pos"].double(), batch["channel"], batch["batch"], len(part), grid)
        spectrum = torch.fft.rfftn(density, dim=(2, 3, 4)).movedim(1, -1).flatten(1, 3)
        weighted = spectrum * multiplicity.flatten()[:, None]
        products = torch.einsum("nkc,nkd->kcd", weighted.real, spectrum.real)
        products += torch.einsum("nkc,nkd->kcd", weighted.imag, spectrum.imag)
        if power is None:
            power = products.new_zeros(n_bins, *products.shape[1:])
        power.index_add_(0, bins.flatten(), products)
    assert power is not None
    modes = torch.zeros(n_bins, dtype=torch.float64).index_add(
        0, bins.flatten(), multiplicity.flatten()
    )
    covariance = power / (modes.clamp(min=1) * samples * grid.size**3)[:, None, None]
    noise = grid.sigma**2 * torch.eye(covariance.shape[1], dtype=torch.float64)
    return LinearDenoiser(torch.linalg.solve(covariance + noise, covariance))
