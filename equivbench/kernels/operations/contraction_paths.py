"""The paths by which several equal factors couple, one after the other, and the coefficients of
their products. Imports no torch before it is asked for numbers.

Two orders of coupling may give the same function of equal factors, or give none: the coefficients
that count are those averaged over all orders of the factors.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from equivbench.errors import UsageError
from equivbench.kernels.operations.paths import Path, coupling

if TYPE_CHECKING:
    from torch import Tensor

Monomial = tuple[int, ...]
"""Rows of the factor, ascending, one as often as it is multiplied."""
Combination = tuple[tuple[int, float], ...]
"""(number of a path, coefficient) pairs, by number."""

_NOISE = 1e-12
"""Far above the rounding of e3nn's float64 table and far below the smallest coefficient."""
_DEPENDENT = 1e-6
"""What is left of unit coefficients, once those of other paths are taken off them, is rounding
below it."""


@dataclass(frozen=True)
class ContractionPath:
    """Factors of ``degrees`` one after the other: the first two couple to ``between[0]``, that and
    the third to ``between[1]``, ..., the last to ``target``."""

    degrees: tuple[int, ...]
    between: tuple[int, ...]
    target: int

    @property
    def couplings(self) -> tuple[Path, ...]:
        """What couples: the degree so far and the next factor's to the next degree; none for one
        factor."""
        first, *others = self.degrees
        # For one factor there are no others, and nothing to couple.
        return tuple(
            Path(source, edge, target)
            for source, edge, target in zip(
                (first, *self.between), others, (*self.between, self.target), strict=False
            )
        )


@lru_cache(maxsize=64)
def contraction_paths(lmax: int, target_lmax: int, correlation: int) -> tuple[ContractionPath, ...]:
    """All paths from 1 to ``correlation`` equal factors of degrees 0 to ``lmax`` to each degree up
    to ``target_lmax`` that are linearly independent as functions of the factor.

    Every degree on the way has natural parity (-1)^l, as in MACE. They are ordered by target,
    number of factors and degrees; of those that depend on each other the first ones are kept.
    Raises ``UsageError`` for a target that no path leads to.
    """
    kept: list[ContractionPath] = []
    for target in range(target_lmax + 1):
        before = len(kept)
        for number in range(1, correlation + 1):
            kept += _independent(lmax, sorted(_chains(lmax, number, target), key=_order))
        if len(kept) == before:
            raise UsageError(
                f"no product of at most {correlation} factors of degrees up to {lmax} has the"
                f" degree {target}"
            )
    return tuple(kept)


def path_scale(path: ContractionPath, lmax: int) -> float:
    """The factor that gives the averaged coefficients of ``path`` the norm (2 l + 1)^1/2 of its
    target, as those of one coupling have."""
    return float((2 * path.target + 1) ** 0.5 / _averaged(path, lmax).norm())


def contraction_coefficients(path: ContractionPath, lmax: int) -> Tensor:
    """[2 l_target + 1, rows, ..., rows] float64, symmetric in the rows of the factors."""
    return _averaged(path, lmax) * path_scale(path, lmax)


@lru_cache(maxsize=64)
def contraction_terms(
    lmax: int, target_lmax: int, correlation: int
) -> dict[tuple[int, Monomial], Combination]:
    """The polynomials: for each (row of the output, monomial) the paths that it occurs in, with
    their coefficients.

    Row ``l ** 2 + m`` is order m of degree l, of the output as of the factor.
    """
    found: dict[tuple[int, Monomial], Combination] = {}
    for number, path in enumerate(contraction_paths(lmax, target_lmax, correlation)):
        coefficients = contraction_coefficients(path, lmax)
        for place in coefficients.abs().gt(_NOISE).nonzero().tolist():
            order, *rows = place
            if rows == sorted(rows):
                # One monomial stands for all orders of its factors.
                orders = len(set(itertools.permutations(rows)))
                key = path.target**2 + order, tuple(rows)
                value = float(coefficients[tuple(place)]) * orders
                found[key] = (*found.get(key, ()), (number, value))
    return found


def _order(path: ContractionPath) -> tuple[Sequence[int], Sequence[int]]:
    return path.degrees, path.between


def _chains(lmax: int, number: int, target: int) -> Iterator[ContractionPath]:
    """All that the triangle rule and parity allow, whatever they depend on."""
    for degrees in itertools.product(range(lmax + 1), repeat=number):
        reached: list[tuple[int, ...]] = [degrees[:1]]
        for degree in degrees[1:]:
            reached = [
                (*chain, following)
                for chain in reached
                for following in range(abs(chain[-1] - degree), chain[-1] + degree + 1, 2)
            ]
        for chain in reached:
            if chain[-1] == target:
                yield ContractionPath(degrees, chain[1:-1], target)


def _independent(lmax: int, paths: Sequence[ContractionPath]) -> Iterator[ContractionPath]:
    """Those whose averaged coefficients are not a combination of those of the ones before."""
    spanned: dict[tuple[int, ...], list[Tensor]] = {}
    for path in paths:
        # Coefficients of other degrees are elsewhere.
        others = spanned.setdefault(tuple(sorted(path.degrees)), [])
        rest = _averaged(path, lmax).flatten()
        size = float(rest.norm())
        if size < _DEPENDENT:
            continue
        rest = rest / size
        for other in others:
            rest = rest - (rest @ other) * other
        left = float(rest.norm())
        if left > _DEPENDENT:
            others.append(rest / left)
            yield path


@lru_cache(maxsize=1024)
def _averaged(path: ContractionPath, lmax: int) -> Tensor:
    """[2 l_target + 1, rows, ..., rows] float64: the coefficients of ``path`` for factors of all
    degrees up to ``lmax``, averaged over the orders of the factors."""
    import torch

    rows = (lmax + 1) ** 2
    first, *others = path.degrees
    coefficients = torch.zeros(2 * first + 1, rows, dtype=torch.float64)
    coefficients[:, first**2 : (first + 1) ** 2] = torch.eye(2 * first + 1, dtype=torch.float64)
    for pair, degree in zip(path.couplings, others, strict=True):
        of_pair = coupling(pair)
        wide = of_pair.new_zeros(*of_pair.shape[:2], rows)
        wide[..., degree**2 : (degree + 1) ** 2] = of_pair
        coefficients = torch.einsum("tse,s...->t...e", wide, coefficients)
    axes = range(1, len(path.degrees) + 1)
    turned = [coefficients.permute(0, *order) for order in itertools.permutations(axes)]
    return torch.stack(turned).sum(0) / math.factorial(len(turned[0].shape) - 1)
