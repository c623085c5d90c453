"""Speed of the voxel task's data pipeline; densities are checked against one float64 atom at a time
in the same call."""

from __future__ import annotations

import pytest
import torch

from equivbench.tasks.voxel.data import voxelise
from equivbench.tasks.voxel.sources import conformers_small
from equivbench.tasks.voxel.table import DEV, PUBLISHED, SMALL

BATCH = 16


@pytest.fixture(scope="module")
def train():
    torch.set_num_threads(1)
    return conformers_small().load().train


def test_load_conformers(benchmark):
    data = benchmark(lambda: conformers_small().load())
    assert len(data.train) + len(data.validation) + len(data.test) == 2000


def test_collate_conformers(benchmark, train):
    batch = benchmark(lambda: train.collate(torch.arange(BATCH)))
    assert len(batch["n_atoms"]) == BATCH


@pytest.mark.parametrize("grid", [DEV, SMALL, PUBLISHED], ids=lambda grid: f"{grid.size}^3")
def test_voxelise(benchmark, train, grid):
    batch = train.collate(torch.arange(BATCH))
    density = benchmark(
        lambda: voxelise(batch["pos"], batch["channel"], batch["batch"], BATCH, grid)
    )
    own = batch["batch"] == 0
    pos, channel = batch["pos"][own].double(), batch["channel"][own]
    alone = [
        voxelise(p[None], c[None], torch.zeros(1, dtype=torch.int64), 1, grid)[0]
        for p, c in zip(pos, channel, strict=True)
    ]
    # Float32: distances rounded at 6 A, on slopes of 1.8/A.
    assert (density[0] - (1 - torch.stack([1 - a for a in alone]).prod(0))).abs().max() < 5e-6
