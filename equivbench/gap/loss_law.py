"""The law of a frontier: loss = floor + prefactor * seconds ** -exponent, fitted in logarithms.

``K`` are the budgets that it is fitted to.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ENOUGH = 5
"""Budgets from which a floor can be told from a slope that levels off."""
_HIGHEST_FLOOR = 0.99
"""Part of the lowest loss below which its floor is sought."""
_POINTS = 33
_ZOOMS = 4
"""Grids, each 16 times as fine as the one before."""


class FlooredPowerLaw(NamedTuple):
    """loss = floor + exp(log_prefactor) * seconds ** -exponent."""

    log_prefactor: float
    exponent: float
    floor: float = 0.0

    def log_loss(self, log_seconds: Array) -> Array:
        """The logarithm of the loss at the budgets."""
        falling = np.exp(self.log_prefactor - self.exponent * log_seconds)
        return np.asarray(np.log(self.floor + falling))


def fit_law(log_seconds: Array, log_loss: Array) -> FlooredPowerLaw:
    """The law nearest to ``log_loss`` [K] in least squares of the logarithms; without a floor where
    there are fewer than :data:`ENOUGH` points.

    For a given floor the law is a straight line in logarithms, so only the floor is searched for:
    on a grid, since there may be several minima, and on ever finer ones round the best.
    """
    if len(log_seconds) < ENOUGH:
        return _laws(log_seconds, log_loss, np.zeros(1))[0]
    lowest = math.exp(float(log_loss.min()))
    low, high = 0.0, _HIGHEST_FLOOR
    for _ in range(_ZOOMS):
        parts = np.linspace(low, high, _POINTS)
        laws = _laws(log_seconds, log_loss, parts * lowest)
        misfits = [float(((law.log_loss(log_seconds) - log_loss) ** 2).sum()) for law in laws]
        best = int(np.argmin(misfits))
        low, high = float(parts[max(best - 1, 0)]), float(parts[min(best + 1, _POINTS - 1)])
    return laws[best]


def _laws(log_seconds: Array, log_loss: Array, floors: Array) -> list[FlooredPowerLaw]:
    """For each of ``floors`` [F] the straight line through log (loss - floor), each point weighted
    by how little its logarithm is magnified by the subtraction."""
    loss = np.exp(log_loss)
    above = loss - floors[:, None]
    weight = (above / loss) ** 2
    weight /= weight.sum(axis=1, keepdims=True)
    logs = np.log(above)
    centre, mean = weight @ log_seconds, (weight * logs).sum(axis=1)
    centred = log_seconds - centre[:, None]
    slope = (weight * centred * logs).sum(axis=1) / (weight * centred**2).sum(axis=1)
    numbers = zip(mean - slope * centre, -slope, floors, strict=True)
    return [FlooredPowerLaw(*map(float, each)) for each in numbers]
