"""Wigner matrices of edges: they turn as they should wherever the edge points, and what does not
see the angle that they leave open has exact derivatives on the polar axis too."""

from __future__ import annotations

import pytest
import torch
from e3nn import o3
from torch import Tensor

from equivbench.kernels.backends.plain.wigner import WignerToAxis, whole_matrices
from equivbench.kernels.operations.edge_frames import frame_elements, frame_rows

LMAX = 3
AXES = torch.cat([torch.eye(3), -torch.eye(3)]).double()
POLES = [(0.0, 1.7, 0.0), (0.0, -1.7, 0.0)]
# On the circle where one choice of the open angle passes into the other, beside the axis, and away
# from both.
PLACES = [*POLES, (1.1, 0.0, -0.4), (1e-9, -1.3, 0.0), (0.4, -0.9, 1.2)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


VECTORS = torch.cat([1.3 * AXES, normal(20, 3)])


def wigner(vectors: Tensor, lmax: int = LMAX, mmax: int = LMAX) -> Tensor:
    """[edges, K, (lmax + 1)^2]."""
    elements = WignerToAxis(lmax, mmax).double()(vectors)
    return whole_matrices(lmax, mmax, vectors)(elements)


def harmonics(vectors: Tensor) -> Tensor:
    """[..., (LMAX + 1)^2] of the directions."""
    return o3.spherical_harmonics(list(range(LMAX + 1)), vectors, normalize=True)


def rotations(matrices: Tensor) -> Tensor:
    """[edges, 3, 3]: what the rows of l = 1 do to a vector."""
    rows = [frame_rows(LMAX, LMAX).index((1, m)) for m in (-1, 0, 1)]
    return matrices[:, rows, 1:4]


def test_they_are_those_of_a_rotation_that_takes_the_vector_to_the_axis() -> None:
    matrices = wigner(VECTORS)
    turns = rotations(matrices)
    # Rounding of float64 in sums of 28 products, some by 30.
    exact = {"atol": 1e-13, "rtol": 0.0}
    assert torch.linalg.det(turns).min() > 0
    up = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).expand(len(VECTORS), 3)
    unit = VECTORS / VECTORS.norm(dim=1, keepdim=True)
    torch.testing.assert_close((turns @ unit.unsqueeze(2)).squeeze(2), up, **exact)
    points = normal(7, 3, seed=1)
    turned = harmonics(points @ turns.mT)
    columns = [l**2 + l + m for l, m in frame_rows(LMAX, LMAX)]
    found = (matrices @ harmonics(points).T).mT
    torch.testing.assert_close(found, turned[:, :, columns], **exact)


@pytest.mark.parametrize("mmax", [0, 1, 2])
def test_lower_orders_are_their_first_rows(mmax: int) -> None:
    every, some = wigner(VECTORS), wigner(VECTORS, mmax=mmax)
    assert some.shape[1] == sum(min(2 * l, 2 * mmax) + 1 for l in range(LMAX + 1))
    # The same polynomials, fitted beside others.
    torch.testing.assert_close(some, every[:, : some.shape[1]], atol=1e-13, rtol=0.0)


def test_their_first_elements_are_harmonics_of_the_edge() -> None:
    elements = WignerToAxis(LMAX, 2).double()(VECTORS)
    assert elements.shape[1] == len(frame_elements(LMAX, 2))
    degrees = list(range(LMAX + 1))
    wanted = o3.spherical_harmonics(degrees, VECTORS, normalize=True, normalization="norm")
    torch.testing.assert_close(elements[:, : (LMAX + 1) ** 2], wanted, atol=1e-13, rtol=0.0)


@pytest.mark.parametrize("lmax", [0, 1, 2, 4])
def test_rows_are_orthonormal_at_every_degree(lmax: int) -> None:
    matrices = wigner(VECTORS, lmax, lmax)
    one = torch.eye((lmax + 1) ** 2, dtype=torch.float64).expand(len(VECTORS), -1, -1)
    torch.testing.assert_close(matrices @ matrices.mT, one, atol=1e-12, rtol=0.0)


def test_a_module_turned_to_float64_is_not_one_that_was_rounded() -> None:
    single = WignerToAxis(LMAX, 2)
    rough = single(VECTORS.float()).double()
    exact = single.double()(VECTORS)
    matrices = whole_matrices(LMAX, 2, exact)(exact)
    one = torch.eye(matrices.shape[1], dtype=torch.float64).expand(len(VECTORS), -1, -1)
    assert (matrices @ matrices.mT - one).abs().max() < 1e-13
    # Sums of products by up to 30 in float32, whose unit roundoff is 6e-8: 5e-7 (measured).
    assert 1e-9 < (rough - exact).abs().max() < 1e-5


def message(module: WignerToAxis, vector: Tensor, x: Tensor) -> Tensor:
    """D^T A D x with an A that commutes with turns about the axis and mixes degrees."""
    turns, rows = whole_matrices(2, 1, vector)(module(vector)), frame_rows(2, 1)
    z = turns @ x
    mixing = z.new_zeros(len(rows), len(rows))
    for n, (l, m) in enumerate(rows):
        for k, (other, order) in enumerate(rows):
            if order == m:
                mixing[n, k] = 0.3 + 0.2 * l - 0.1 * other * abs(m)
            elif order == -m:
                # Imaginary parts: minus from -m to m, plus from m to -m.
                mixing[n, k] = (0.4 + 0.1 * l + 0.2 * other) * (-1 if m > 0 else 1)
    return turns.mT @ mixing @ z


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_what_commutes_with_turns_about_the_edge_is_smooth_everywhere(
    place: tuple[float, float, float],
) -> None:
    module, x = WignerToAxis(2, 1).double(), normal(1, 9, 2, seed=2)
    vector = torch.tensor([place], dtype=torch.float64, requires_grad=True)

    def function(one: Tensor) -> Tensor:
        return message(module, one, x)

    # Against finite differences, which step over the axis and from one choice to the other.
    assert torch.autograd.gradcheck(function, vector)
    assert torch.autograd.gradgradcheck(function, vector)
