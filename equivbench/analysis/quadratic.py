"""How much of a two-dimensional slice is a bowl: a quadratic fitted to it, and how rough what it leaves is. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from equivbench.errors import UsageError

Array: TypeAlias = NDArray[np.float64]

LEAST_POINTS = 4
"""Along each axis: the quadratic has six coefficients, and the roughness compares neighbours."""
_ROUNDING = 1e-11
"""Of the largest value of the slice: what varies by less is flat, a residual below it is none (float64, errors summed over
thousands of entries)."""


@dataclass(frozen=True)
class Bowl:
    """The least-squares quadratic c + b x + x A x / 2 of a slice."""

    curvatures: tuple[float, float]
    """Eigenvalues of A, the larger first."""
    r2: float | None
    """Part of the slice's variance that it explains; None where the slice is flat to rounding."""
    roughness: float | None
    """Half of von Neumann's ratio of the residual: mean square difference of neighbours (both axes) over twice the variance.
    About 1 for white noise, near 0 for what is smooth on the scale of the grid. None where nothing but rounding is left."""

    @property
    def condition(self) -> float | None:
        """Ratio of the curvatures; None where one is not positive."""
        larger, smaller = self.curvatures
        return larger / smaller if smaller > 0 else None


def fit_bowl(first: Array, second: Array, values: Array) -> Bowl:
    """Fit the slice ``values`` [n, m] at distances ``first`` [n] and ``second`` [m] along two perpendicular unit vectors.

    Raises ``UsageError`` for fewer than ``LEAST_POINTS`` along an axis.

    J. von Neumann, Annals of Mathematical Statistics 12 (1941) 367, for the ratio.
    """
    if min(values.shape) < LEAST_POINTS:
        raise UsageError(f"a slice takes at least {LEAST_POINTS} points along each axis, not {min(values.shape)}")
    # Scaled to unit reach, so that axes of very different length do not spoil the fit's conditioning.
    scale = float(np.abs(first).max()), float(np.abs(second).max())
    x, y = np.meshgrid(first / scale[0], second / scale[1], indexing="ij")
    columns = np.stack([np.ones_like(x), x, y, x * x / 2, x * y, y * y / 2], axis=-1).reshape(-1, 6)
    level = values.mean()
    coefficients, *_ = np.linalg.lstsq(columns, (values - level).reshape(-1), rcond=None)
    residual = values - level - (columns @ coefficients).reshape(values.shape)
    xx, xy, yy = coefficients[3] / scale[0] ** 2, coefficients[4] / (scale[0] * scale[1]), coefficients[5] / scale[1] ** 2
    smaller, larger = np.linalg.eigvalsh(np.array([[xx, xy], [xy, yy]]))
    tiny = (_ROUNDING * np.abs(values).max()) ** 2
    spread, left = float((values - level).var()), float(np.square(residual).mean())
    return Bowl(
        curvatures=(float(larger), float(smaller)),
        r2=1 - left / spread if spread > tiny else None,
        roughness=_roughness(residual) if left > tiny else None,
    )


def _roughness(residual: Array) -> float:
    steps = np.concatenate([np.diff(residual, axis=0).reshape(-1), np.diff(residual, axis=1).reshape(-1)])
    return float(np.square(steps).mean() / (2 * residual.var()))
