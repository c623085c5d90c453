"""The parts of an error on a plane through trained weights, on samples that stay fixed or are drawn
anew at every point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from equivbench.errors import FailedError
from equivbench.studies.fixed_loss import ErrorParts
from equivbench.studies.landscape.hessian import Varied

Array: TypeAlias = NDArray[np.float64]

_HALVINGS = 40
"""By then a step is lost in the rounding of float32 weights."""


@dataclass(frozen=True)
class Plane:
    """A grid on the plane that two perpendicular unit vectors span through a point."""

    centre: Array
    """[n] the weights themselves."""
    directions: Array
    """[2, n]."""
    axes: tuple[Array, Array]
    """Distances along each, symmetric about 0."""


def plane_of(centre: Array, directions: Array, radii: tuple[float, float], points: int) -> Plane:
    """The plane with ``points`` along each axis, evenly from -radius to radius."""
    first, second = (np.linspace(-radius, radius, points) for radius in radii)
    return Plane(centre, directions, (first, second))


def natural_radius(value: float, curvature: float, weights: Array) -> float:
    """Where curvature alone changes an error by half its ``value``: r^2 |curvature| / 2 = value /
    2.

    The same along negative curvature, where a quadratic that fell by all of the value would promise
    the impossible. At most the length of ``weights``: along a direction without curvature nothing
    else sets a scale.
    """
    longest = float(np.linalg.norm(weights)) or 1.0
    return min(float(np.sqrt(abs(value / curvature))), longest) if curvature != 0 else longest


def fitting_radius(change: Callable[[float], float], value: float, radius: float) -> float:
    """``radius``, halved until ``change(radius)``, the most that an error really changes that far
    out, is at most its ``value``.

    Where the curvature is next to nothing, :func:`natural_radius` leads far beyond what curvature
    describes.
    """
    for _ in range(_HALVINGS):
        if change(radius) <= abs(value):
            break
        radius /= 2
    return radius


def slice_parts(
    errors: Callable[[int], ErrorParts], varied: Varied, plane: Plane
) -> dict[str, Array]:
    """[n, m] of each part at the points of ``plane``; ``errors(i)`` judges the model as it is at
    the i-th point, row by row.

    The weights are as they were afterwards.
    """
    first, second = plane.axes
    rows = []
    try:
        with torch.no_grad():
            for index, (x, y) in enumerate((x, y) for x in first for y in second):
                varied.write(plane.centre + x * plane.directions[0] + y * plane.directions[1])
                parts = errors(index)
                rows.append((float(parts.total), float(parts.twirled), float(parts.equivariance)))
    finally:
        varied.write(plane.centre)
    values = np.asarray(rows).reshape(len(first), len(second), 3)
    return {
        name: values[..., column]
        for column, name in enumerate(("total", "twirled", "equivariance"))
    }


def require_finite(grids: Mapping[str, Array]) -> None:
    """Raise ``FailedError`` where an error on a slice is not finite."""
    if not all(np.isfinite(grid).all() for grid in grids.values()):
        raise FailedError(
            "the error is not finite everywhere on the slice; take a smaller --radius"
        )
