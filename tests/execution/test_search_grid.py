"""Trials are equal for both arms, and the grid grows only where an optimum lies at its edge."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivbench.errors import UsageError
from equivbench.execution.trials import SearchGrid, best_point, first_grid


@given(st.integers(4, 400), st.floats(1e-6, 1.0), st.integers(1, 512))
def test_the_first_grid_has_as_many_points_as_trials_asked_for(trials, rate, batch):
    grid = first_grid([rate, rate], [batch, batch], trials)
    assert len(grid.points) == trials == len(set(grid.points))
    assert len(grid.rates) >= 4
    assert all(low < high for low, high in zip(grid.rates, grid.rates[1:], strict=False))
    assert all(size >= 1 for size in grid.batches)


@pytest.mark.parametrize("trials", [-1, 0, 3, 401])
def test_too_few_or_absurdly_many_trials_are_refused(trials):
    with pytest.raises(UsageError):
        first_grid([1e-3], [32], trials)


def test_the_grid_is_centred_on_the_geometric_mean_of_what_the_arms_use():
    assert first_grid([1e-3, 4e-3], [16, 64], 12) == SearchGrid(
        (5e-4, 1e-3, 2e-3, 4e-3), (16, 32, 64)
    )


@given(st.sampled_from(["lower rate", "higher rate", "smaller batch", "larger batch"]))
def test_growing_keeps_every_point_and_makes_the_old_edge_interior(side):
    grid = SearchGrid((1e-3, 2e-3, 4e-3, 8e-3), (8, 16, 32))
    corner = {
        "lower rate": (1e-3, 16),
        "higher rate": (8e-3, 16),
        "smaller batch": (2e-3, 8),
        "larger batch": (2e-3, 32),
    }[side]
    assert grid.edges(corner) == [side]
    larger = grid.extended(side)
    assert set(grid.points) < set(larger.points)
    assert larger.edges(corner) == []


def test_interior_points_single_batches_and_batches_of_one_are_not_at_an_edge():
    assert SearchGrid((1.0, 2.0, 4.0), (8, 16, 32)).edges((2.0, 16)) == []
    assert SearchGrid((1.0, 2.0, 4.0), (8,)).edges((2.0, 8)) == []
    assert SearchGrid((1.0, 2.0, 4.0), (1, 2, 4)).edges((2.0, 1)) == []


def test_a_diverged_trial_never_wins():
    assert best_point({(1.0, 1): None, (2.0, 1): 5.0, (3.0, 1): 4.0}) == (3.0, 1)
    assert best_point({(1.0, 1): None}) is None
