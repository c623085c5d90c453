"""The voxel task: the density of a molecule on a grid, from the same with normal noise on every
voxel; and the best isotropic linear denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from equivbench.errors import unknown_name
from equivbench.symmetry.rotations import random_rotations
from equivbench.tasks.base import Batch, Split, Task, TaskData
from equivbench.tasks.voxel.data import voxelise
from equivbench.tasks.voxel.declarations import BOARD_UNIT, FIELDS, GROUP
from equivbench.tasks.voxel.table import ELEMENTS, Grid

_BASELINE_VOXELS = 2**25
"""Voxels for which the zero predictor's error is summed: all of a small test set, 128 molecules on
the published grid."""

BINS_PER_FREQUENCY = 2
"""Bins of |k| per 1 / box: fine against the width of an atom's spectrum, coarse enough to hold many
modes each."""
_FITTED_VOXELS = 2**23
"""Voxels that spectra are estimated from (600 molecules at 24^3, 32 at 64^3, more modes a bin
there)."""


class VoxelDenoising(Task):
    """Predict the density from the noisy one; the board metric is the squared error, averaged over
    voxels and channels.

    The noise is VoxMol's (Pinheiro et al. 2023): normal, with the grid's sigma. A rotation turns
    atoms before they are voxelised; the noise and what a model predicts turn on the grid.
    """

    name = "voxel"
    prediction = "density"
    index_field = "batch"
    board_unit = BOARD_UNIT
    group = GROUP
    interpolates: ClassVar[bool] = True
    fields = FIELDS

    def noise(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """``noise``, unit normal, one grid a sample; float32 drawn on the generator's device."""
        size = grid_of(batch).size
        shape = (self.samples_in(batch), len(ELEMENTS), size, size, size)
        return {"noise": torch.randn(shape, generator=generator, device=generator.device)}

    def assemble(
        self, batch: Batch, noise: Batch, requires: Mapping[str, float]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Input ``noisy``, target ``density``, voxelised on the batch's device; ``requires`` must
        be empty."""
        if requires:
            raise unknown_name("derived input of task voxel", min(requires), [])
        grid = grid_of(batch)
        density = voxelise(
            batch["pos"], batch["channel"], batch["batch"], self.samples_in(batch), grid
        )
        return {"noisy": density + grid.sigma * noise["noise"].to(density)}, {"density": density}

    def objective(self, outputs: Batch, targets: Batch, inputs: Batch) -> Tensor:
        """The squared error averaged over voxels, channels and samples: VoxMol's, which is summed,
        but for that constant.

        Gradients of single weights are then some 1e-6 or more, so Adam's epsilon (1e-8) plays no
        part.
        """
        error: Tensor = (outputs["density"] - targets["density"]).square().mean()
        return error

    def samples_in(self, batch: Batch) -> int:
        """Number of molecules."""
        return len(batch["n_atoms"])

    def weights(self, batch: Batch) -> Tensor:
        """One for every voxel and channel, in the shape of the prediction, so that the board metric
        is their mean."""
        grids = batch["noise"] if "noise" in batch else batch["noisy"]
        return grids.new_ones(()).expand_as(grids)

    def baseline(self, split: Split) -> float:
        """Mean over voxels and channels of density^2: the error of predicting empty space.

        On large sets over an even spread of the molecules, in the orientations that they are stored
        in: a rotation changes it by what the grid does not resolve.
        """
        size = grid_of(split.collate(torch.tensor([0]))).size
        samples = min(len(split), max(_BASELINE_VOXELS // size**3, 1))
        chosen = torch.linspace(0, len(split) - 1, samples, dtype=torch.float64).round().long()
        total = 0.0
        for indices in torch.split(chosen, 8):
            density = self._density(split.collate(indices))
            total += float(density.double().square().mean()) * len(indices)
        return total / samples

    def untrained(self, data: TaskData, seed: int = 0) -> dict[str, nn.Module]:
        """``linear``: the best isotropic linear denoiser, fitted on the training split in random
        orientations."""
        return {"linear": fit_linear_denoiser(self, data.train, seed)}

    def _density(self, batch: Batch) -> Tensor:
        return voxelise(
            batch["pos"], batch["channel"], batch["batch"], self.samples_in(batch), grid_of(batch)
        )


def grid_of(batch: Batch) -> Grid:
    """The grid that all samples of a batch share."""
    return Grid.of(*batch["grid"][0].tolist())


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
    # The modes of a bin together: their products are one small matrix product.
    by_bin = torch.argsort(bins.flatten(), stable=True)
    counts: list[int] = torch.bincount(bins.flatten()).tolist()
    times = torch.split(multiplicity.flatten()[by_bin], counts)
    products = []
    for part in torch.split(torch.arange(samples), 8):
        batch = split.collate(order[part])
        moved = task.rotate(batch, rotations[part], batch["batch"])
        density = voxelise(moved["pos"].double(), batch["channel"], batch["batch"], len(part), grid)
        spectrum = torch.fft.rfftn(density, dim=(2, 3, 4)).movedim(1, 0).flatten(2)
        # [channels, samples, modes, real and imaginary part]
        modes = torch.split(torch.view_as_real(spectrum)[:, :, by_bin], counts, dim=2)
        of_bins = zip(modes, times, strict=True)
        products.append(
            torch.stack(
                [(own * each[:, None]).flatten(1) @ own.flatten(1).T for own, each in of_bins]
            )
        )
    power, weight = torch.stack(products).sum(0), torch.stack([each.sum() for each in times])
    covariance = power / (weight.clamp(min=1) * samples * grid.size**3)[:, None, None]
    noise = grid.sigma**2 * torch.eye(covariance.shape[1], dtype=torch.float64)
    return LinearDenoiser(torch.linalg.solve(covariance + noise, covariance))
