"""The grids' noise and margins, and the ball that decides what fits them."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equivbench.symmetry.rotations import random_rotations
from equivbench.tasks.voxel.table import (
    DEV,
    ELEMENTS,
    NUMBERS,
    PUBLISHED,
    SMALL,
    Grid,
    smallest_ball,
    standard,
)


def test_the_published_grid_and_noise() -> None:
    assert (PUBLISHED.size, PUBLISHED.resolution, PUBLISHED.radius, PUBLISHED.sigma) == (
        64,
        0.25,
        0.5,
        0.9,
    )
    assert PUBLISHED.box == 16
    assert (DEV.box, SMALL.box) == (8, 12)
    assert SMALL.sigma == pytest.approx(0.318, abs=5e-4)


@given(st.floats(0.1, 1.0))
def test_noise_keeps_the_signal_to_noise_of_an_atom(resolution: float) -> None:
    grid = standard(32, resolution)
    # Signal energy of an atom is proportional to its number of voxels.
    assert grid.resolution**-3 / grid.sigma**2 == pytest.approx(0.25**-3 / 0.9**2)


def test_a_batch_row_gives_the_grid_back() -> None:
    for grid in (DEV, SMALL, PUBLISHED):
        assert Grid.of(*torch.tensor(grid.numbers(), dtype=torch.float64).tolist()) == grid


def test_elements_are_in_the_order_of_their_numbers() -> None:
    assert list(NUMBERS) == sorted(NUMBERS)
    assert len(NUMBERS) == len(ELEMENTS) == 8


def test_what_a_grid_holds_keeps_its_margin() -> None:
    assert SMALL.holds(5.0)
    assert not SMALL.holds(5.001)


clouds: st.SearchStrategy[Any] = st.lists(
    st.tuples(*[st.floats(-9, 9)] * 3), min_size=1, max_size=8
).map(np.array)


@given(clouds)
def test_the_ball_holds_all_points_and_no_smaller_one_does(points: np.ndarray) -> None:
    centre, radius = smallest_ball(points)
    assert np.linalg.norm(points - centre, axis=1).max() == pytest.approx(radius, rel=1e-12)
    # Jung's theorem in three dimensions, and half the largest distance: the bounds of any smallest
    # ball.
    diameter = max((np.linalg.norm(a - b) for a, b in combinations(points, 2)), default=0.0)
    # 1e-8: the slack of "inside" in a ball of 10 A.
    assert diameter / 2 - 1e-8 <= radius <= np.sqrt(3 / 8) * diameter + 1e-8
    # The largest distance is a convex function of the centre: a minimum nearby is the minimum.
    for step in np.vstack([np.eye(3), -np.eye(3), (points - centre) / 10]) * 1e-3:
        assert np.linalg.norm(points - centre - step, axis=1).max() >= radius - 1e-8


@pytest.mark.parametrize(
    ("points", "centre", "radius"),
    [
        ([[1, 2, 3]], [1, 2, 3], 0),
        ([[0, 0, 0], [0, 0, 2]], [0, 0, 1], 1),
        ([[0, 0, 0], [0, 0, 0], [0, 0, 2], [0, 0, 1]], [0, 0, 1], 1),
        ([[1, 1, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0]], [0, 0, 0], np.sqrt(2)),
        ([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], [0, 0, 0], np.sqrt(3)),
    ],
)
def test_balls_known_by_hand(points: list[list[float]], centre: list[float], radius: float) -> None:
    found = smallest_ball(np.array(points))
    assert found[0] == pytest.approx(np.array(centre), abs=1e-9)
    assert found[1] == pytest.approx(radius, abs=1e-9)


def test_the_ball_turns_with_its_points() -> None:
    points = np.random.default_rng(0).standard_normal((60, 3)) * 3
    centre, radius = smallest_ball(points)
    for rotation in (
        random_rotations(5, generator=torch.Generator().manual_seed(0)).double().numpy()
    ):
        turned = smallest_ball(points @ rotation.T + [1, -2, 3])
        # Rotation matrices are given in float32.
        assert turned[1] == pytest.approx(radius, rel=1e-6)
        assert turned[0] == pytest.approx(rotation @ centre + [1, -2, 3], abs=1e-5)
