"""What an equivariance error is made of: how much of a function on a group belongs to each of the
group's irreps, and so how fast it varies with the rotation and whether it changes sign with the
hand."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from equivbench.errors import UsageError
from equivbench.specs import Group
from equivbench.symmetry.decomposition import broadcast_weights
from equivbench.symmetry.types import representation

FEWEST_DRAWS = 3
"""Independent draws that the estimator needs: a pair, and another to take the mean from."""
CUBE_IRREPS = ("A2", "E", "T1", "T2")
"""Of the 24 rotations of the cube, in Mulliken's names; A1 is the average itself."""
PARITY = "0o"
"""The irrep of O(3) that no rotation changes and a reflection turns round."""


def irreps_of(group: Group, highest: int) -> tuple[str, ...]:
    """The names of the irreps of ``group`` up to degree ``highest``, but for the trivial one.

    ``so3``: ``l=1``, ``l=2``, ...; ``o3``: in e3nn's notation ``0o``, ``1e``, ``1o``, ..., where
    ``e`` is what the inversion leaves alone; ``octahedral``: all four others, whatever ``highest``.
    """
    if group == "octahedral":
        return CUBE_IRREPS
    if group == "so3":
        return tuple(f"l={degree}" for degree in range(1, highest + 1))
    names = (f"{degree}{parity}" for degree in range(highest + 1) for parity in "eo")
    return tuple(name for name in names if name != "0e")


def irrep_powers(
    values: Tensor,
    elements: Tensor,
    group: Group,
    *,
    highest: int = 4,
    weights: Tensor | None = None,
    quadrature: Tensor | None = None,
) -> dict[str, Tensor]:
    """The mean square of the part of a function on a group that belongs to each irrep.

    With ``F(g)`` the function, d the irrep's dimension and chi its character, the part is
    ``F_rho(g) = d <chi(g h^-1) F(h)>_h`` and its mean square

        P_rho = d <chi(g h^-1) F(g) . F(h)>_gh.

    For predictions that were rotated back, ``F(g) = rho(g)^-1 f(g x)``, the trivial irrep holds the
    twirled prediction and all others together the equivariance error (Peter and Weyl; Parseval).

    Independent draws: the mean over pairs of different draws, each less the mean of all the others.
    That is unbiased for every irrep but the trivial one, does not see a constant, and errs by about
    d^2 over the number of pairs. A single row may be below 0. A quadrature, or the whole cube
    group: the sums themselves.

    Parameters
    ----------
    values
        [n, rows, ...]: ``F`` at n elements for each row; squares are summed over trailing axes.
    elements
        [n, rows, 3, 3] orthogonal matrices, or [n, 1, 3, 3] where all rows share them.
    group
        That the elements are drawn from, or its quadrature, or for ``octahedral`` all 24 of it.
    highest
        Degree of the last irrep of ``so3`` and ``o3``.
    weights
        Of the squares, as :func:`equivbench.symmetry.decomposition.decompose` takes them.
    quadrature
        [n] weights of the elements, which are then shared by all rows; None: they are draws.

    Returns
    -------
    dict
        [rows] float64 by the names of :func:`irreps_of`.

    Raises
    ------
    UsageError
        For fewer than three draws, or not all 24 rotations of the cube.
    """
    n, rows = len(values), values.shape[1]
    if group == "octahedral" and n != 24:
        raise UsageError(
            f"the irreps of the cube's rotations need all 24 of them, not {n}; use 24 rotations"
        )
    if group != "octahedral" and quadrature is None and n < FEWEST_DRAWS:
        raise UsageError(f"irreps need at least {FEWEST_DRAWS} rotations, not {n}")
    shifted = values.double() - values[0].double()
    if weights is not None:
        # One draw's squares are weighted by the root in each of two factors.
        weight = broadcast_weights(weights, values.shape[1:])
        shifted = shifted.masked_fill(weight == 0, 0) * weight.sqrt()
    shifted = shifted.reshape(n, rows, -1)
    if quadrature is not None:
        return _by_coefficients(shifted, elements, group, highest, quadrature)
    centred = shifted - shifted.mean(0)
    products = torch.einsum("irk,jrk->ijr", centred, centred)
    own = products.diagonal(dim1=0, dim2=1).T
    if group == "octahedral":
        kernel, divisor = products, n * n
    else:
        # <F_i - c, F_j - c> with c the mean of the other draws, in terms of the mean of them all.
        both = own[:, None] + own[None]
        kernel = ((n - 1) ** 2 + 1) * products + (n - 1) * both
        kernel = kernel / (n - 2) ** 2
        kernel[torch.arange(n), torch.arange(n)] = 0
        divisor = n * (n - 1)
    found = _characters(elements.double(), group, highest)
    return {
        name: dimension * (character * kernel).sum((0, 1)) / divisor
        for name, (dimension, character) in found.items()
    }


def _characters(elements: Tensor, group: Group, highest: int) -> Mapping[str, tuple[int, Tensor]]:
    """(dimension, [n, n, rows or 1] character of g_i g_j^-1) of each irrep."""
    traces = torch.einsum("irab,jrab->ijr", elements, elements)
    if group == "octahedral":
        # Without its signs a rotation of the cube is a permutation of the axes.
        axes = elements.abs()
        kept = torch.einsum("irab,jrab->ijr", axes, axes)
        sign = torch.linalg.det(axes)
        odd = sign[:, None] * sign[None]
        return {"A2": (1, odd), "E": (2, kept - 1), "T1": (3, traces), "T2": (3, odd * traces)}
    sides = torch.linalg.det(elements).sign()
    sign = sides[:, None] * sides[None]
    cosine = ((sign * traces - 1) / 2).clamp(-1, 1)
    found = {}
    # 1 + 2 cos(angle) + ... + 2 cos(l angle), the cosines one after the other.
    before, now, character = torch.ones_like(cosine), cosine, torch.ones_like(cosine)
    for degree in range(highest + 1):
        if degree:
            character = character + 2 * now
            before, now = now, 2 * cosine * now - before
        for name, value in _named(group, degree, character, sign * character):
            found[name] = (2 * degree + 1, value)
    return found


def _by_coefficients(
    values: Tensor, elements: Tensor, group: Group, highest: int, quadrature: Tensor
) -> dict[str, Tensor]:
    """The same from ``values`` [n, rows, k] at the points of a quadrature: sums over matrix
    elements, which take n steps where characters take n squared."""
    if elements.shape[1] != 1:
        raise UsageError("the rows of a quadrature share its elements, [n, 1, 3, 3]")
    matrices = elements[:, 0].double()
    weights = quadrature.to(values)
    sides = torch.linalg.det(matrices).sign()
    proper = sides[:, None, None] * matrices
    found: dict[str, Tensor] = {}
    for degree in range(highest + 1):
        entries = weights[:, None] * representation(degree, proper).flatten(1)
        even, odd = (
            (2 * degree + 1)
            * torch.einsum("nm,nrk->mrk", side * entries, values).square().sum((0, 2))
            for side in (torch.ones_like(sides)[:, None], sides[:, None])
        )
        found.update(_named(group, degree, even, odd))
    return found


def _named(group: Group, degree: int, even: Tensor, odd: Tensor) -> list[tuple[str, Tensor]]:
    """What belongs to the irreps of one degree, by name; without the trivial irrep."""
    if group == "so3":
        return [(f"l={degree}", even)] if degree else []
    return [*([(f"{degree}e", even)] if degree else []), (f"{degree}o", odd)]
