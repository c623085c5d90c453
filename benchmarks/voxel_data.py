"""The voxel task's data pipeline: what a training step must not wait for."""

from __future__ import annotations

from functools import cache

import torch

from equivbench.tasks.base import TaskData
from equivbench.tasks.voxel.grid import DEV, PUBLISHED, SMALL
from equivbench.tasks.voxel.sources import conformers_small
from equivbench.tasks.voxel.voxelise import voxelise

BATCH = 16


@cache
def shipped() -> TaskData:
    """The shipped data."""
    torch.set_num_threads(1)
    return conformers_small().load()


class Load:
    """Reading the shipped set."""

    version = "1"

    def setup(self) -> None:
        """Imports are not part of it."""
        shipped()

    def time_load_shipped(self) -> None:
        """From file to splits, checksum included."""
        conformers_small().load()


class Voxelise:
    """One batch of 16 shipped molecules on each grid, on one thread."""

    version = "1"
    params = [DEV.size, SMALL.size, PUBLISHED.size]
    param_names = ["size"]

    def setup(self, size: int) -> None:
        """A fixed choice of molecules."""
        self.train = shipped().train
        self.indices = torch.arange(BATCH)
        self.batch = self.train.collate(self.indices)
        self.grid = {grid.size: grid for grid in (DEV, SMALL, PUBLISHED)}[size]

    def time_collate(self, size: int) -> None:
        """Gather the samples."""
        self.train.collate(self.indices)

    def time_voxelise(self, size: int) -> None:
        """Density grids of the batch."""
        voxelise(self.batch["pos"], self.batch["channel"], self.batch["batch"], BATCH, self.grid)
