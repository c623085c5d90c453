"""Neighbour lists against a brute-force search over all pairs in float64, and the symmetries they
must have."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from equivbench.kernels.neighbours import edges_within
from equivbench.symmetry.rotations import random_rotations

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=5)
SEEDS = st.integers(0, 2**31)


def molecules(sizes: list[int], seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # All molecules lie on top of one another, so that a missing mask would show as edges between
    # them.
    pos = 2 * torch.randn(sum(sizes), 3, generator=generator)
    return pos, torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))


def brute_force(pos: Tensor, batch: Tensor, cutoff: float, most: int | None) -> list[list[int]]:
    points = pos.double().tolist()
    pairs = []
    for target, here in enumerate(points):
        near = []
        for source, there in enumerate(points):
            squared = sum((a - b) ** 2 for a, b in zip(there, here, strict=True))
            if source != target and batch[source] == batch[target] and squared < cutoff**2:
                near.append((squared, source))
        kept = near if most is None else sorted(near)[:most]
        pairs += [[source, target] for source in sorted(source for _, source in kept)]
    return pairs


@given(SIZES, SEEDS, st.floats(0.5, 8.0), st.none() | st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_edges_are_those_of_a_search_over_all_pairs(
    sizes: list[int], seed: int, cutoff: float, most: int | None
) -> None:
    pos, batch = molecules(sizes, seed)
    assert edges_within(pos, batch, cutoff, most).T.tolist() == brute_force(
        pos, batch, cutoff, most
    )


@given(SIZES, SEEDS)
@settings(max_examples=30, deadline=None)
def test_rotating_each_molecule_leaves_the_edges_unchanged(sizes: list[int], seed: int) -> None:
    pos, batch = molecules(sizes, seed)
    rotations = random_rotations(
        len(sizes), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    turned = torch.einsum("aij,aj->ai", rotations[batch], pos.double())
    distances = torch.cdist(pos.double(), pos.double())
    cutoff = 3.0
    # A pair within rounding of the cutoff may fall on either side: such draws say nothing.
    if (distances - cutoff).abs().min() > 1e-9:
        assert torch.equal(edges_within(turned, batch, cutoff), edges_within(pos, batch, cutoff))


def test_edges_are_symmetric_without_a_limit_on_neighbours() -> None:
    edges = edges_within(*molecules([5, 8, 3], 0), cutoff=3.0)
    pairs = set(map(tuple, edges.T.tolist()))
    assert pairs == {(target, source) for source, target in pairs}


def test_equally_near_neighbours_are_kept_by_lower_index() -> None:
    # Four atoms at exactly the same distance from atom 0.
    pos = torch.tensor([[0.0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    edges = edges_within(pos, torch.zeros(5, dtype=torch.int64), 1.5, 2)
    assert edges[0, edges[1] == 0].tolist() == [1, 2]


def test_a_pair_at_the_cutoff_is_left_out() -> None:
    pos = torch.tensor([[0.0, 0, 0], [2.0, 0, 0]])
    assert edges_within(pos, torch.zeros(2, dtype=torch.int64), 2.0).shape == (2, 0)


@pytest.mark.parametrize("atoms", [0, 1])
def test_no_pairs_give_an_empty_list_of_edges(atoms: int) -> None:
    edges = edges_within(torch.zeros(atoms, 3), torch.zeros(atoms, dtype=torch.int64), 5.0, 3)
    assert edges.shape == (2, 0)
    assert edges.dtype == torch.int64


def test_a_molecule_number_without_atoms_is_allowed() -> None:
    pos, batch = molecules([3, 4], 1)
    assert torch.equal(edges_within(pos, 2 * batch, 4.0), edges_within(pos, batch, 4.0))
