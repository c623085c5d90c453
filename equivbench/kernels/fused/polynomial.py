"""The polynomials of a symmetric contraction, written for few operations: what the code generator
unrolls.

Every row of the output is a polynomial of the rows of x, the same for all channels, whose
coefficients are combinations of an element's weights. Each different combination is a slot,
computed once an element and channel; some differ in sign alone. A polynomial is evaluated by
Horner's rule in several variables: the row that most of its monomials share is taken out of these,
and so on in what is left (Ceberio and Kreinovich 2004 compare this greedy order with others).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from equivbench.kernels.operations import SymmetricContraction
from equivbench.kernels.operations.contraction_paths import (
    Combination,
    Monomial,
    contraction_terms,
)

Coefficient = tuple[int, int]
"""(slot, sign)."""

_DIGITS = 1e-12
"""Combinations that agree to it are the same: far above rounding, far below any coefficient."""


@dataclass(frozen=True)
class HornerSum:
    """A polynomial as a sum of coefficients and of rows of x times further sums."""

    coefficients: tuple[Coefficient, ...]
    products: tuple[tuple[int, HornerSum], ...]
    """(row of x, what it is multiplied by)."""


@dataclass(frozen=True)
class Polynomials:
    """All rows of the output of ``operation``."""

    operation: SymmetricContraction
    slots: tuple[Combination, ...]
    rows: tuple[HornerSum, ...]


@lru_cache(maxsize=64)
def polynomials(operation: SymmetricContraction) -> Polynomials:
    """The polynomials of ``operation``, each different combination of weights once."""
    terms = contraction_terms(operation.lmax, operation.target_lmax, operation.correlation)
    slots: dict[tuple[tuple[int, int], ...], tuple[int, Combination]] = {}
    rows: list[dict[Monomial, Coefficient]] = [{} for _ in range((operation.target_lmax + 1) ** 2)]
    for (row, monomial), combination in terms.items():
        sign = 1 if combination[0][1] > 0 else -1
        positive = tuple((path, sign * value) for path, value in combination)
        known = tuple((path, round(value / _DIGITS)) for path, value in positive)
        slot, _ = slots.setdefault(known, (len(slots), positive))
        rows[row][monomial] = slot, sign
    return Polynomials(
        operation,
        tuple(combination for _, combination in slots.values()),
        tuple(horner(row) for row in rows),
    )


def horner(terms: Mapping[Monomial, Coefficient]) -> HornerSum:
    """The sum of ``terms``, with the row that most of them share taken out first."""
    coefficients = tuple(one for monomial, one in terms.items() if not monomial)
    left = {monomial: one for monomial, one in terms.items() if monomial}
    products = []
    while left:
        shared = Counter(row for monomial in left for row in set(monomial))
        row = max(sorted(shared), key=shared.__getitem__)
        factor = {_without(monomial, row): left[monomial] for monomial in left if row in monomial}
        left = {monomial: one for monomial, one in left.items() if row not in monomial}
        products.append((row, horner(factor)))
    return HornerSum(coefficients, tuple(products))


def _without(monomial: Monomial, row: int) -> Monomial:
    place = monomial.index(row)
    return monomial[:place] + monomial[place + 1 :]
