"""The smallest ball round a set of points: what must fit the box so that no rotation moves an atom
out of it. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-9
"""Relative slack of "inside": far above rounding in float64, far below the 1 mA of stored
positions."""


def smallest_ball(points: NDArray[np.floating]) -> tuple[NDArray[np.float64], float]:
    """(centre [3], radius) of the smallest ball that holds ``points`` [n, 3], n >= 1; exact to
    rounding.

    At most four points on the ball's surface determine it. From the ball of one point, the point
    farthest outside is brought in and the ball of the surface points and this one solved anew; the
    radius grows each time, so this ends (an LP-type problem: Matousek, Sharir & Welzl 1996).
    """
    exact = points.astype(np.float64)
    surface: tuple[int, ...] = (0,)
    centre, radius = exact[0], 0.0
    while True:
        distances = np.linalg.norm(exact - centre, axis=1)
        farthest = int(distances.argmax())
        if distances[farthest] <= radius * (1 + TOLERANCE) + TOLERANCE:
            return centre, float(distances[farthest])
        surface, centre, radius = _ball_with(exact, surface, farthest)


def _ball_with(
    points: NDArray[np.float64], surface: Sequence[int], new: int
) -> tuple[tuple[int, ...], NDArray[np.float64], float]:
    """(surface points, centre, radius) of the smallest ball round ``surface`` and ``new``, which
    lies outside theirs.

    ``new`` is then on the surface, with one to three of the others.
    """
    everything = points[[*surface, new]]
    best: tuple[tuple[int, ...], NDArray[np.float64], float] | None = None
    for size in (1, 2, 3):
        for others in combinations(surface, size):
            centre, radius = _circumscribed(points[[new, *others]])
            if best is not None and radius >= best[2]:
                continue
            if (
                np.linalg.norm(everything - centre, axis=1).max()
                <= radius * (1 + TOLERANCE) + TOLERANCE
            ):
                best = ((new, *others), centre, radius)
    assert best is not None, "four of five points determine their smallest ball"
    return best


def _circumscribed(corners: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """(centre, radius) of the smallest sphere through ``corners`` [k, 3]: |c - p_i| alike for all
    i, c in their plane."""
    edges = corners[1:] - corners[0]
    # c - p_0 = edges^T a with 2 edges (c - p_0) = |edges|^2; least squares where corners coincide
    # or lie on a line.
    weights = np.linalg.lstsq(2 * edges @ edges.T, (edges**2).sum(1), rcond=None)[0]
    offset = weights @ edges
    return corners[0] + offset, float(np.linalg.norm(offset))
