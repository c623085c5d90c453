"""A two-dimensional slice of an error through trained weights: where its points lie, the error at
them, and how much of it is a bowl."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from equivbench.studies.fixed_loss import ErrorParts
from equivbench.studies.landscape.hessian import Array, Varied
from equivbench.studies.record import ERROR_PARTS

LEAST_POINTS = 6
"""Along each axis: more than determine the quartic that the roughness compares with."""
_HALVINGS = 40
"""By then a step is lost in the rounding of float32 weights."""
_ROUNDING = 1e-11
"""Of the largest value of the slice: what varies by less is flat, a residual below it is none
(float64, errors summed over thousands of entries)."""


@dataclass(frozen=True)
class SlicePlane:
    """A grid on the plane that two perpendicular unit vectors span through a point."""

    centre: Array
    """[n] the weights themselves."""
    directions: Array
    """[2, n]."""
    axes: tuple[Array, Array]
    """Distances along each, symmetric about 0."""


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
    errors: Callable[[int], ErrorParts], varied: Varied, plane: SlicePlane
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
    return {name: values[..., column] for column, name in enumerate(ERROR_PARTS)}


@dataclass(frozen=True)
class QuadraticFit:
    """The least-squares quadratic c + b x + x A x / 2 of a slice."""

    curvatures: tuple[float, float]
    """Eigenvalues of A, the larger first."""
    r2: float | None
    """Part of the slice's variance that it explains; None where the slice is flat to rounding."""
    roughness: float | None
    """Part of the residual's variance, by degrees of freedom, that a quartic leaves too: about 1
    for white noise, near 0 for a smooth shape that is merely no quadratic, on coarse grids and fine
    ones. None where nothing but rounding is left."""

    @property
    def condition(self) -> float | None:
        """Ratio of the curvatures; None where one is not positive."""
        larger, smaller = self.curvatures
        return larger / smaller if smaller > 0 else None


def fit_quadratic(first: Array, second: Array, values: Array) -> QuadraticFit:
    """Fit the slice ``values`` [n, m] at distances ``first`` [n] and ``second`` [m] along two
    perpendicular unit vectors; at least ``LEAST_POINTS`` along each."""
    # Scaled to unit reach, so that axes of very different length do not spoil the fit's
    # conditioning.
    scale = float(np.abs(first).max()), float(np.abs(second).max())
    x, y = np.meshgrid(first / scale[0], second / scale[1], indexing="ij")
    level = values.mean()
    coefficients, residual = _fitted(x, y, values - level, degree=2)
    xx, xy, yy = 2 * coefficients[2, 0], coefficients[1, 1], 2 * coefficients[0, 2]
    smaller, larger = np.linalg.eigvalsh(np.array([[xx, xy], [xy, yy]]) / np.outer(scale, scale))
    tiny = (_ROUNDING * np.abs(values).max()) ** 2
    spread, left = float((values - level).var()), float(np.square(residual).mean())
    return QuadraticFit(
        curvatures=(float(larger), float(smaller)),
        r2=1 - left / spread if spread > tiny else None,
        roughness=_roughness(x, y, values - level, left) if left > tiny else None,
    )


def _fitted(x: Array, y: Array, values: Array, degree: int) -> tuple[Array, Array]:
    """(coefficients [degree + 1, degree + 1] of x^i y^j with i + j <= degree, what the fit
    leaves)."""
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    columns = np.stack([(x**i * y**j).reshape(-1) for i, j in powers], axis=1)
    found, *_ = np.linalg.lstsq(columns, values.reshape(-1), rcond=None)
    coefficients = np.zeros((degree + 1, degree + 1))
    for (i, j), value in zip(powers, found, strict=True):
        coefficients[i, j] = value
    return coefficients, values - (columns @ found).reshape(values.shape)


def _roughness(x: Array, y: Array, values: Array, left: float) -> float:
    _, residual = _fitted(x, y, values, degree=4)
    # Coefficients of a quadratic and of a quartic in two variables.
    quadratic, quartic = 6, 15
    return float(
        np.square(residual).mean() / left * (values.size - quadratic) / (values.size - quartic)
    )
