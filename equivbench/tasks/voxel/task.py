"""The voxel task: the density of a molecule on a grid, from the same with normal noise on every
voxel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from equivbench.errors import unknown_name
from equivbench.tasks.base import Batch, Split, Task, TaskData
from equivbench.tasks.voxel.baseline import fit_linear_denoiser
from equivbench.tasks.voxel.declarations import BOARD_UNIT, FIELDS
from equivbench.tasks.voxel.grid import ELEMENTS, Grid
from equivbench.tasks.voxel.voxelise import voxelise

_BASELINE_VOXELS = 2**25
"""Voxels for which the zero predictor's error is summed: all of a small test set, 128 molecules on
the published grid."""


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
    group = "octahedral"
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
        return batch["noise"].new_ones(()).expand_as(batch["noise"])

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

    def untrained(self, data: TaskData, seed: int = 0) -> dict[str, torch.nn.Module]:
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
