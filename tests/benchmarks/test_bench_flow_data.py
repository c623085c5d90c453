"""pytest-benchmark: a batch of backbones, which has to hide behind a training step."""

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from equivbench.tasks.flow.sources import ca_crops_64, ca_small


@pytest.mark.parametrize("dataset", ["ca-small", "ca-crops-64"])
def test_collate(benchmark: BenchmarkFixture, dataset: str) -> None:
    split = (ca_small() if dataset == "ca-small" else ca_crops_64()).load().train
    indices = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:32]
    batch = benchmark(split.collate, indices)
    assert len(batch["mask"]) == 32
