"""Speed of the force field's data pipeline; neighbours are checked against a float64 reference in
the same call."""

from __future__ import annotations

import pytest
import torch

from equivbench.registry import DATASETS, TASKS, resolve
from equivbench.symmetry.rotations import random_rotations

BATCH = 32


@pytest.fixture(scope="module")
def shipped():
    torch.set_num_threads(1)
    return resolve(TASKS.get("forcefield").factory)(), resolve(
        DATASETS.get("gfn2-small").factory
    )().load().train


def test_load(benchmark):
    data = benchmark(lambda: resolve(DATASETS.get("gfn2-small").factory)().load())
    assert len(data.train) + len(data.validation) + len(data.test) == 1995


def test_collate(benchmark, shipped):
    _, train = shipped
    batch = benchmark(lambda: train.collate(torch.arange(BATCH)))
    assert len(batch["energy"]) == BATCH


def test_neighbours(benchmark, shipped):
    task, train = shipped
    batch = train.collate(torch.arange(BATCH))
    inputs, _ = benchmark(lambda: task.assemble(batch, {}, {"edge_index": 5.0}))
    distance = torch.cdist(batch["pos"].double(), batch["pos"].double())
    same = batch["batch"][:, None] == batch["batch"][None, :]
    near = (distance < 5.0) & same & ~torch.eye(len(distance), dtype=torch.bool)
    assert inputs["edge_index"].shape[1] == int(near.sum())


def test_whole_batch(benchmark, shipped):
    task, train = shipped
    generator = torch.Generator().manual_seed(0)

    def batch():
        samples = train.collate(torch.arange(BATCH))
        rotated = task.rotate(
            samples,
            random_rotations(BATCH, generator=generator, dtype=torch.float64),
            samples["batch"],
        )
        return task.assemble(rotated, {}, {"edge_index": 5.0})[1]

    targets = benchmark(batch)
    # A rotation changes no force's length; float32 rounding of one float64 product.
    original = train.collate(torch.arange(BATCH))["forces"]
    assert torch.allclose(targets["forces"].norm(dim=-1), original.norm(dim=-1), atol=1e-4)
