"""The force field's data pipeline: what a training step must not wait for."""

from __future__ import annotations

from functools import cache

import torch

from equivbench.registry import DATASETS, TASKS, resolve
from equivbench.symmetry.rotations import random_rotations
from equivbench.tasks.base import Task, TaskData

BATCH = 32


@cache
def shipped() -> tuple[Task, TaskData]:
    """The task and its shipped data."""
    torch.set_num_threads(1)
    return resolve(TASKS.get("forcefield").factory)(), resolve(DATASETS.get("gfn2-small").factory)().load()


class Load:
    """Reading the shipped set."""

    version = "1"

    def setup(self) -> None:
        """Imports are not part of it."""
        shipped()

    def time_load_shipped(self) -> None:
        """From file to splits, checksum included."""
        resolve(DATASETS.get("gfn2-small").factory)().load()


class Pipeline:
    """One batch of 32 molecules, repeated 20 times."""

    version = "1"

    def setup(self) -> None:
        """A fixed choice of molecules."""
        self.task, data = shipped()
        self.train = data.train
        self.indices = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(0))[:BATCH]
        self.rotations = random_rotations(BATCH, generator=torch.Generator().manual_seed(0))
        self.batch = self.train.collate(self.indices)

    def time_collate(self) -> None:
        """Gather the samples."""
        for _ in range(20):
            self.train.collate(self.indices)

    def time_rotate(self) -> None:
        """Rotate positions and forces, each molecule by its own rotation."""
        for _ in range(20):
            self.task.rotate(self.batch, self.rotations, self.batch["batch"])

    def time_neighbours_5_angstrom(self) -> None:
        """Assemble the inputs with a neighbour list."""
        for _ in range(20):
            self.task.assemble(self.batch, {}, {"edge_index": 5.0})
