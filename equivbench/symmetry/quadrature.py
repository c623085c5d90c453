"""Averages over SO(3) and O(3) by quadrature: exact for what varies with the rotation no faster
than the degree, where independent draws give one or two digits."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from equivbench.errors import UsageError

HIGHEST_DEGREE = 100
"""Half a million rotations."""
_WRITTEN = re.compile(r"quadrature:(\d+)")


class Quadrature(NamedTuple):
    """Elements of a group and how much each counts."""

    rotations: Tensor
    """[n, 3, 3] float64; for O(3) the second half has determinant -1."""
    weights: Tensor
    """[n] float64, summing to 1."""


def rotation_quadrature(degree: int, group: str = "so3") -> Quadrature:
    """Elements and weights whose weighted sum is the Haar average of every function of degree up to
    ``degree`` (a sum of entries of the representation matrices of l = 0, ..., ``degree``).

    The squared error of an output whose dependence on the orientation is of degree l is of degree
    2 l. A product rule in Euler angles z-y-z: ``degree`` + 1 equal steps in the outer two, and
    Gauss and Legendre's points in the cosine of the middle one. ``o3`` has each element twice, once
    with its inversion.

    Raises ``UsageError`` for a degree below 1 or above 100, and for another group.
    """
    if not 1 <= degree <= HIGHEST_DEGREE:
        raise UsageError(f"the degree of a quadrature is 1 to {HIGHEST_DEGREE}, not {degree}")
    if group not in ("so3", "o3"):
        raise UsageError(f"there is a quadrature for so3 and o3, not for {group!r}")
    steps = degree + 1
    angles = 2 * torch.pi * torch.arange(steps, dtype=torch.float64) / steps
    points, weights = np.polynomial.legendre.leggauss(degree // 2 + 1)
    middle = torch.from_numpy(np.arccos(points))
    outer = _about_z(angles)
    rotations = torch.einsum("aij,bjk,ckl->abcil", outer, _about_y(middle), outer)
    each = torch.from_numpy(weights / 2)[None, :, None].expand(steps, -1, steps) / steps**2
    found = Quadrature(rotations.reshape(-1, 3, 3), each.reshape(-1))
    if group == "so3":
        return found
    return Quadrature(
        torch.cat((found.rotations, -found.rotations)), torch.cat((found.weights,) * 2) / 2
    )


def quadrature_degree(rotations: int | str) -> int | None:
    """The degree of ``quadrature:DEGREE``; None for a number of draws.

    Raises ``UsageError`` for anything else.
    """
    if isinstance(rotations, int):
        return None
    found = _WRITTEN.fullmatch(rotations)
    if found is None:
        raise UsageError(
            f"rotations are a number, or quadrature:DEGREE with a degree of 1 to {HIGHEST_DEGREE}, "
            f"not {rotations!r}"
        )
    return int(found.group(1))


def _about_z(angles: Tensor) -> Tensor:
    cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    one = zero + 1
    rows = (cosine, -sine, zero, sine, cosine, zero, zero, zero, one)
    return torch.stack(rows, dim=1).reshape(-1, 3, 3)


def _about_y(angles: Tensor) -> Tensor:
    cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    one = zero + 1
    rows = (cosine, zero, sine, zero, one, zero, -sine, zero, cosine)
    return torch.stack(rows, dim=1).reshape(-1, 3, 3)
