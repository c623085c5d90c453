"""Speed of rotations, the decomposition and a measurement, each checked against its closed form in
the same call."""

from __future__ import annotations

import pytest
import torch

from equivbench.symmetry.decomposition import decompose
from equivbench.symmetry.rotations import random_rotations
from equivbench.symmetry.types import SymmetryType

ATOMS = 10_000


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_random_rotations(benchmark):
    rotations = benchmark(lambda: random_rotations(ATOMS))
    # Orthogonality holds to rounding of float32 products.
    assert torch.allclose(
        rotations @ rotations.mT, torch.eye(3, dtype=rotations.dtype).expand(ATOMS, 3, 3), atol=1e-5
    )


def test_rotate_vectors(benchmark):
    vectors, rotations = torch.randn(ATOMS, 3), random_rotations(ATOMS, dtype=torch.float64)
    rotated = benchmark(lambda: SymmetryType.parse("1o").act(vectors, rotations))
    exact = torch.einsum("nij,nj->ni", rotations, vectors.double())
    # The action computes in float64 and rounds once.
    assert torch.allclose(rotated.double(), exact, atol=1e-6)


@pytest.mark.parametrize("rotations", [4, 24])
def test_decompose(benchmark, rotations):
    predictions, target = torch.randn(rotations, ATOMS, 3), torch.randn(ATOMS, 3)
    parts = benchmark(lambda: decompose(predictions, target))
    plug_in = (predictions - target).double().square().sum(-1).mean(0)
    # The total is the plug-in mean; sums of float32 inputs in float64 agree to 1e-9 relative.
    assert torch.allclose(parts.total.double(), plug_in, rtol=1e-6)


def test_interval(benchmark):
    parts = decompose(
        torch.randn(4, ATOMS, 3), torch.randn(ATOMS, 3), groups=torch.arange(ATOMS) // 25
    )
    low, high = benchmark(parts.interval)
    assert low < parts.share < high
