"""The paths of a symmetric contraction: as many as there are equivariant polynomials, and the sums
written out where that is short."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from torch import Tensor

from equivbench.errors import UsageError
from equivbench.kernels.operations import Case, SymmetricContraction
from equivbench.kernels.operations.contraction_paths import (
    contraction_coefficients,
    contraction_paths,
    contraction_terms,
)
from equivbench.kernels.problem import make_inputs

CPU = torch.device("cpu")


def drawn(operation: SymmetricContraction, nodes: int = 5, elements: int = 3) -> dict[str, Tensor]:
    case = Case("test", operation, {"nodes": nodes, "elements": elements}, 2, "")
    return make_inputs(case, dtype=torch.float64, device=CPU)


def multiplicity(lmax: int, factors: int, degree: int) -> int:
    """How many independent polynomials of so many factors turn as ``degree`` does: by the weights
    (order and parity) of all monomials of factors that turn about one axis by a phase each."""
    weights = [(m, l % 2) for l in range(lmax + 1) for m in range(-l, l + 1)]
    found = Counter(
        (sum(m for m, _ in one), sum(odd for _, odd in one) % 2)
        for one in itertools.combinations_with_replacement(weights, factors)
    )
    return found[degree, degree % 2] - found[degree + 1, degree % 2]


@pytest.mark.parametrize("lmax", [0, 1, 2, 3])
def test_there_are_as_many_paths_as_equivariant_polynomials(lmax: int) -> None:
    found = Counter(
        (len(path.degrees), path.target) for path in contraction_paths(lmax, min(lmax, 2), 3)
    )
    for factors, target in itertools.product((1, 2, 3), range(min(lmax, 2) + 1)):
        assert found[factors, target] == multiplicity(lmax, factors, target)


def test_paths_are_ordered_by_target_and_factors() -> None:
    paths = contraction_paths(2, 2, 3)
    keys = [(path.target, len(path.degrees), path.degrees, path.between) for path in paths]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


def test_coefficients_are_symmetric_of_unit_size_and_independent() -> None:
    vectors: dict[tuple[int, int], list[Tensor]] = {}
    for path in contraction_paths(2, 1, 3):
        coefficients = contraction_coefficients(path, 2)
        factors = range(1, len(path.degrees) + 1)
        for order in itertools.permutations(factors):
            # The same numbers, summed in another order.
            torch.testing.assert_close(
                coefficients.permute(0, *order), coefficients, rtol=0, atol=1e-15
            )
        assert float(coefficients.norm()) == pytest.approx((2 * path.target + 1) ** 0.5)
        key = path.target, len(path.degrees)
        vectors.setdefault(key, []).append(coefficients.flatten())
    for one in vectors.values():
        assert torch.linalg.matrix_rank(torch.stack(one)) == len(one)


def test_scalars_and_vectors_are_the_polynomials_written_out() -> None:
    operation = SymmetricContraction(2, 1, 1)
    inputs = drawn(operation)
    scalar, *vector = inputs["x"].view(5, 4, 2).unbind(1)
    squared = sum(one.square() for one in vector)
    w = inputs["weights"].view(3, 9, 2)[inputs["elements"]].unbind(1)
    # Of unit size: |v|^2 has three coefficients that count, s^2 v has its one in three places.
    expected = [
        w[0] * scalar
        + w[1] * scalar**2
        + w[2] * squared / 3**0.5
        + w[3] * scalar**3
        + w[4] * scalar * squared
    ]
    of_scalars = w[5] + 2**0.5 * w[6] * scalar + 3**0.5 * w[7] * scalar**2
    expected += [(of_scalars + 0.6**0.5 * w[8] * squared) * one for one in vector]
    # Float64 rounding of a few terms.
    torch.testing.assert_close(
        operation.reference(**inputs), torch.cat(expected, dim=1), rtol=1e-13, atol=1e-13
    )


@pytest.mark.parametrize("correlation", [1, 2, 3, 4])
def test_the_terms_are_the_reference(correlation: int) -> None:
    operation = SymmetricContraction(2, 1, 1, correlation)
    inputs = drawn(operation)
    x = inputs["x"].view(5, 4, 2)
    weights = inputs["weights"].view(3, -1, 2)[inputs["elements"]]
    found = torch.zeros_like(x)
    for (row, monomial), combination in contraction_terms(1, 1, correlation).items():
        product = x[:, list(monomial)].prod(1)
        for path, value in combination:
            found[:, row] += value * weights[:, path] * product
    # As above.
    torch.testing.assert_close(
        operation.reference(**inputs), found.flatten(1), rtol=1e-13, atol=1e-13
    )


def test_a_node_sees_itself_and_the_weights_of_its_element_alone() -> None:
    operation = SymmetricContraction(2, 2, 1)
    inputs = drawn(operation)
    inputs["elements"] = torch.tensor([0, 2, 2, 0, 1])
    before = operation.reference(**inputs)
    inputs["weights"][2] += 1
    inputs["x"][4] += 1
    same = (operation.reference(**inputs) == before).all(1)
    assert same.tolist() == [True, False, False, True, False]


def test_a_degree_that_no_product_has_is_said() -> None:
    with pytest.raises(UsageError, match="at most 2 factors of degrees up to 1 has the degree 3"):
        _ = SymmetricContraction(2, 1, 3, 2).paths
    with pytest.raises(UsageError, match="has the degree 1"):
        _ = SymmetricContraction(2, 0, 1).paths
