"""The voxel task's data pipeline: what a training step must not wait for."""

from __future__ import annotations

from functools import cache

import torch

from equivbench.tasks.base import TaskData
from equivbench.tasks.voxel.data import voxelise
from equivbench.tasks.voxel.sources import conformers_small
from equivbench.tasks.voxel.table import DEV, PUBLISHED, SMALL

BATCH = 16


@cache
def shipped() -> TaskData:
    """The shipped data."""
    torch.set_num_threads(1)
    return conformers_small().load()


class Load:
    """Reading the shipped set."""

    version = "2"
    timeout = 120

    def setup(self) -> None:
        """Imports are not part of it."""
        shipped()

    def time_load_shipped(self) -> None:
        """From file to splits, checksum included, four times over."""
        for _ in range(4):
            conformers_small().load()


@cache
def chosen() -> dict[str, torch.Tensor]:
    """The batch of the first molecules."""
    return dict(shipped().train.collate(torch.arange(BATCH)))


class Collate:
    """Gathering one batch of 16 shipped molecules."""

    version = "2"
    timeout = 120

    def setup(self) -> None:
        """A fixed choice of molecules."""
        self.train = shipped().train
        self.indices = torch.arange(BATCH)

    def time_collate(self) -> None:
        """Gather the samples, 400 times over."""
        for _ in range(400):
            self.train.collate(self.indices)


class Voxelise:
    """Density grids of one batch of 16 shipped molecules on each grid, on one thread."""

    version = "2"
    timeout = 120
    params = (DEV.size, SMALL.size, PUBLISHED.size)
    param_names = ("size",)

    def setup(self, size: int) -> None:
        """Once a process: asv repeats ``setup`` before every sample."""
        self.batch = chosen()
        self.grid = {grid.size: grid for grid in (DEV, SMALL, PUBLISHED)}[size]

    def time_voxelise(self, size: int) -> None:
        """Four times over."""
        for _ in range(4):
            voxelise(
                self.batch["pos"], self.batch["channel"], self.batch["batch"], BATCH, self.grid
            )
