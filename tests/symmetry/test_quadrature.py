"""The quadrature over rotations, against the orthogonality of representations and closed forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equivbench.errors import UsageError
from equivbench.symmetry.decomposition import decompose
from equivbench.symmetry.quadrature import rotation_quadrature
from equivbench.symmetry.rotations import random_rotations
from equivbench.symmetry.types import representation


@pytest.mark.parametrize("degree", [1, 2, 3, 6])
def test_representations_average_to_zero_up_to_the_degree(degree: int) -> None:
    rotations, weights = rotation_quadrature(degree)
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-12)
    for order in range(1, degree + 1):
        mean = torch.tensordot(weights, representation(order, rotations), dims=1)
        # Rounding of sums of some hundred terms, and of the least squares behind the matrices.
        assert mean.abs().max() < 1e-12, order
    beyond = representation(degree + 1, rotations)
    assert torch.tensordot(weights, beyond, dims=1).abs().max() > 1e-3


@pytest.mark.parametrize("order", [1, 2, 3])
def test_entries_of_a_representation_are_orthogonal_at_twice_its_degree(order: int) -> None:
    rotations, weights = rotation_quadrature(2 * order)
    matrices = representation(order, rotations).flatten(1)
    products = torch.einsum("n,na,nb->ab", weights, matrices, matrices)
    # Schur: the identity over 2 l + 1.
    assert torch.allclose(products, torch.eye(len(products)).double() / (2 * order + 1), atol=1e-12)


def test_elements_are_orthogonal_and_half_of_o3_is_improper() -> None:
    rotations, weights = rotation_quadrature(5, "o3")
    identity = torch.eye(3, dtype=torch.float64)
    assert torch.allclose(rotations @ rotations.mT, identity.expand_as(rotations), atol=1e-14)
    determinants = torch.linalg.det(rotations)
    assert torch.allclose(determinants.abs(), torch.ones_like(determinants), atol=1e-13)
    assert float(weights[determinants < 0].sum()) == pytest.approx(0.5, abs=1e-12)


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_a_linear_map_is_decomposed_exactly(seed: int) -> None:
    # f(x) = A x pulled back is R^T A R x: over SO(3) it averages to tr(A) / 3 x, and its spread is
    # of degree 4 in R, so degree 4 is exact and 8 gives the same.
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    found = []
    for degree in (4, 8):
        rotations, weights = rotation_quadrature(degree)
        pulled = torch.einsum("nji,jk,nkl,bl->nbi", rotations, matrix, rotations, x)
        found.append(decompose(pulled, torch.zeros_like(x), quadrature=weights))
    twirled = (matrix.trace() / 3 * x).square().sum(1)
    assert torch.allclose(found[0].twirled, twirled, atol=1e-12)
    assert torch.allclose(found[0].equivariance, found[1].equivariance, atol=1e-12)
    draws = random_rotations(20_000, generator=generator, dtype=torch.float64)
    pulled = torch.einsum("nji,jk,nkl,bl->nbi", draws, matrix, draws, x)
    drawn = decompose(pulled, torch.zeros_like(x)).equivariance.sum()
    assert float(found[0].equivariance.sum()) == pytest.approx(float(drawn), rel=0.1)


def test_small_rotations_give_the_lie_derivative() -> None:
    # Gruver et al. (arXiv 2210.02984): what a small rotation about an axis changes, over its angle.
    # Of f(x) = A x it is (A X - X A) x, with X the generator; two rotations by plus and minus the
    # angle have that, squared, as their equivariance error.
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    axis = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]).double()
    derivative = x @ (matrix @ axis - axis @ matrix).T
    angle = 1e-4
    rotations = torch.stack([torch.matrix_exp(sign * angle * axis) for sign in (1.0, -1.0)])
    pulled = torch.einsum("nji,jk,nkl,bl->nbi", rotations, matrix, rotations, x)
    found = decompose(pulled, torch.zeros_like(x), exhaustive=True).equivariance
    # The next term is smaller by the square of the angle.
    assert torch.allclose(found / angle**2, derivative.square().sum(1), rtol=1e-6)


@pytest.mark.parametrize(("degree", "group"), [(0, "so3"), (101, "so3"), (3, "octahedral")])
def test_what_is_no_quadrature_is_refused(degree: int, group: str) -> None:
    with pytest.raises(UsageError):
        rotation_quadrature(degree, group)


@pytest.mark.parametrize("weights", [[0.5, 0.5, 0.5], [0.5, 0.6], [1.5, -0.5]])
def test_weights_that_are_none_are_refused(weights: list[float]) -> None:
    with pytest.raises(UsageError):
        decompose(torch.zeros(2, 4, 3), torch.zeros(4, 3), quadrature=torch.tensor(weights))
