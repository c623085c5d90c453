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
    return resolve(TASKS.get("forcefield").factory)(), resolve(
        DATASETS.get("gfn2-small").factory
    )().load()


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
            resolve(DATASETS.get("gfn2-small").factory)().load()


@cache
def chosen() -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """(indices of a fixed choice of molecules, a rotation for each, the batch they make)."""
    _, data = shipped()
    indices = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[:BATCH]
    rotations = random_rotations(BATCH, generator=torch.Generator().manual_seed(0))
    return indices, rotations, dict(data.train.collate(indices))


class Pipeline:
    """One batch of 32 molecules, as often as makes a sample of 10 ms or more."""

    version = "2"
    timeout = 120

    def setup(self) -> None:
        """Once a process: asv repeats ``setup`` before every sample."""
        self.task, data = shipped()
        self.train = data.train
        self.indices, self.rotations, self.batch = chosen()

    def time_collate(self) -> None:
        """Gather the samples, 400 times over."""
        for _ in range(400):
            self.train.collate(self.indices)

    def time_rotate(self) -> None:
        """Rotate positions and forces, each molecule by its own rotation, 100 times over."""
        for _ in range(100):
            self.task.rotate(self.batch, self.rotations, self.batch["batch"])

    def time_neighbours_5_angstrom(self) -> None:
        """Assemble the inputs with a neighbour list, 50 times over."""
        for _ in range(50):
            self.task.assemble(self.batch, {}, {"edge_index": 5.0})
