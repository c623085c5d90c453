"""Polynomials in Horner's form are the polynomials."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equivbench.kernels.fused.polynomial import HornerSum, horner, polynomials
from equivbench.kernels.operations import SymmetricContraction
from equivbench.kernels.operations.contraction_paths import Monomial, contraction_terms

MONOMIALS = st.lists(st.integers(0, 4), max_size=4).map(lambda rows: tuple(sorted(rows)))
COEFFICIENTS = st.tuples(st.integers(0, 9), st.sampled_from([-1, 1]))


def expanded(polynomial: HornerSum) -> Iterator[tuple[Monomial, tuple[int, int]]]:
    """The terms one by one."""
    for coefficient in polynomial.coefficients:
        yield (), coefficient
    for row, factor in polynomial.products:
        for monomial, coefficient in expanded(factor):
            yield tuple(sorted((*monomial, row))), coefficient


@settings(deadline=None)
@given(st.dictionaries(MONOMIALS, COEFFICIENTS, max_size=12))
def test_every_term_is_there_once(terms: dict[Monomial, tuple[int, int]]) -> None:
    found = list(expanded(horner(terms)))
    assert len(found) == len(terms)
    assert dict(found) == terms


def test_the_row_that_most_terms_share_is_taken_out_first() -> None:
    terms = {(0, 1): (0, 1), (1, 2): (1, 1), (1, 1, 3): (2, -1), (0,): (3, 1)}
    (first, _), (second, _) = horner(terms).products
    assert (first, second) == (1, 0)


@pytest.mark.parametrize(
    "operation", [SymmetricContraction(4, 2, 1), SymmetricContraction(4, 3, 0)], ids=str
)
def test_slots_and_signs_rebuild_the_coefficients(operation: SymmetricContraction) -> None:
    table = polynomials(operation)
    found = {
        (row, monomial): tuple((path, sign * value) for path, value in table.slots[slot])
        for row, polynomial in enumerate(table.rows)
        for monomial, (slot, sign) in expanded(polynomial)
    }
    wanted = contraction_terms(operation.lmax, operation.target_lmax, operation.correlation)
    assert found.keys() == wanted.keys()
    for place, combination in wanted.items():
        # Combinations that agree to the rounding of the table share a slot.
        assert [path for path, _ in found[place]] == [path for path, _ in combination]
        values = [value for _, value in combination]
        assert [value for _, value in found[place]] == pytest.approx(values, rel=0, abs=2e-12)
    # Sharing is what slots are for.
    assert len(set(table.slots)) == len(table.slots) < len(wanted)
