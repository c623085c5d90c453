"""The flow's path and its times: how t is drawn and weighted in training, and the quadrature in t
of the test metric.

Proteina's choices (Geffner et al. 2025, 2503.00710): x_t = (1 - t) x0 + t x1 in nm, v-prediction, t
from .02 U(0, 1) + .98 Beta(1.9, 1), squared error of x1 weighted by 1 / ((1 - t)^2 + 1e-5).
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

TIMES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99)
"""The published flow times, nodes of the test quadrature."""
UNIFORM_PART, BETA_EXPONENT = 0.02, 1.9
WEIGHT_OFFSET = 1e-5


def centred(x: Tensor, mask: Tensor) -> Tensor:
    """``x`` [samples, residues, 3] about the mean of each sample's residues, and 0 where ``mask``
    is False."""
    x = x.masked_fill(~mask[..., None], 0.0)
    count = mask.sum(1).clamp(min=1).to(x.dtype)[:, None, None]
    return (x - x.sum(1, keepdim=True) / count).masked_fill(~mask[..., None], 0.0)


def interpolate(x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """The linear path (1 - t) x0 + t x1, [samples, residues, 3], for t [samples]."""
    t = t[:, None, None]
    return (1 - t) * x0 + t * x1


def x1_from_velocity(x_t: Tensor, t: Tensor, v: Tensor) -> Tensor:
    """The end point x_t + (1 - t) v that a velocity v [samples, residues, 3] (nm) implies: x_t
    itself at t = 1."""
    return x_t + (1 - t[:, None, None]) * v


def density(t: Tensor) -> Tensor:
    """p(t) of the training times: .02 + .98 * 1.9 t^0.9 on [0, 1]."""
    return UNIFORM_PART + (1 - UNIFORM_PART) * BETA_EXPONENT * t ** (BETA_EXPONENT - 1)


def draw_times(samples: int, generator: torch.Generator) -> Tensor:
    """[samples] float32 training times, on the generator's device."""
    uniform = torch.rand(2, samples, generator=generator, device=generator.device)
    # Beta(a, 1) has the distribution function t^a, hence the root.
    return torch.where(uniform[0] < UNIFORM_PART, uniform[1], uniform[1] ** (1 / BETA_EXPONENT))


def objective_weight(t: Tensor) -> Tensor:
    """1 / ((1 - t)^2 + 1e-5): the weight of the squared error of x1, which makes it one of v but
    for the last .003."""
    return 1 / ((1 - t) ** 2 + WEIGHT_OFFSET)


@cache
def board_quadrature() -> Tensor:
    """[8] float64 weights of ``TIMES`` for the mean over t in [0, 1]: trapezoids, and constant
    above the last time.

    They add up to 1. At t = 1 every v-prediction is exact, so the constant overstates the last
    hundredth, by 1e-6 nm^2 for the published model.
    """
    times = torch.tensor([*TIMES, 1.0], dtype=torch.float64)
    gaps = times.diff()
    weights = torch.zeros(len(TIMES), dtype=torch.float64)
    weights[:-1] += gaps[:-1] / 2
    weights[1:] += gaps[:-1] / 2
    weights[-1] += gaps[-1]
    return weights


@cache
def objective_quadrature() -> Tensor:
    """[8] float64 weights W of the mean squared errors E(t) of x1 at ``TIMES``: sum W E is the
    expected training objective.

    The squared error of v, E / (1 - t)^2, is taken as linear between the times and constant above
    the last one, and its integral with p(t) (1 - t)^2 / ((1 - t)^2 + 1e-5) is exact. The integral
    of E's own interpolant would be ruled by its value above t = .99, where 81% of p(t) / ((1 - t)^2
    + 1e-5) lies.
    """
    nodes = torch.tensor(TIMES, dtype=torch.float64)
    weights = torch.zeros(len(TIMES), dtype=torch.float64)
    for k in range(len(TIMES) - 1):
        left, right = TIMES[k], TIMES[k + 1]
        t, dt = _gauss_legendre(left, right)
        mass = density(t) * (1 - t) ** 2 * objective_weight(t) * dt
        weights[k] += (mass * (right - t) / (right - left)).sum()
        weights[k + 1] += (mass * (t - left) / (right - left)).sum()
    # The weight has width sqrt(1e-5) = .003 at t = 1: panels that halve towards it.
    edges = [1 - (1 - TIMES[-1]) * 0.5**k for k in range(12)] + [1.0]
    for left, right in pairwise(edges):
        t, dt = _gauss_legendre(left, right)
        weights[-1] += (density(t) * (1 - t) ** 2 * objective_weight(t) * dt).sum()
    return weights / (1 - nodes) ** 2


def _gauss_legendre(left: float, right: float, points: int = 64) -> tuple[Tensor, Tensor]:
    """(abscissae, weights) on [left, right], both [points] float64."""
    import numpy as np

    x, w = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(points))
    return (left + right) / 2 + (right - left) / 2 * x, (right - left) / 2 * w
