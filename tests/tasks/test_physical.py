"""The least distance between atoms, of few and of many."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from equivbench.tasks.physical import closest


@pytest.mark.parametrize("atoms", [2, 3, 256, 257, 700])
@pytest.mark.parametrize("together", [False, True])
def test_it_is_the_least_of_all_pairs(atoms: int, together: bool) -> None:
    pos = np.random.default_rng(atoms).normal(size=(atoms, 3))
    if together:
        pos[-1] = pos[0]
    # Both take the root of the same sum of three squares.
    assert closest(pos) == pytest.approx(pdist(pos).min(), rel=1e-14, abs=0)


def test_one_atom_is_far_from_all_others() -> None:
    assert closest(np.zeros((1, 3))) == np.inf


def test_memory_grows_with_atoms_and_not_with_pairs() -> None:
    pos = np.random.default_rng(0).normal(size=(20_000, 3))
    tracemalloc.start()
    closest(pos)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # All pairs would be 1.6 GB.
    assert peak < 20_000_000
