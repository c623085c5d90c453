"""The irreps of a function on a group, against functions that are made of known ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from equivbench.errors import UsageError
from equivbench.specs import Group
from equivbench.symmetry.decomposition import decompose
from equivbench.symmetry.quadrature import rotation_quadrature
from equivbench.symmetry.rotations import octahedral_rotations, random_rotations
from equivbench.symmetry.spectrum import irrep_powers, irreps_of
from equivbench.symmetry.types import representation

Model = Callable[[Tensor, Tensor], Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def parts_of(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Trace, antisymmetric and traceless symmetric part."""
    trace = matrix.trace() / 3 * torch.eye(3, dtype=matrix.dtype)
    antisymmetric = (matrix - matrix.T) / 2
    return trace, antisymmetric, matrix - trace - antisymmetric


def pulled_back(model: Model, elements: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """[n, rows, 3] of a model that takes two vectors and gives one, at [n, rows or 1, 3, 3]."""
    moved = [
        torch.einsum("nrij,rj->nri", elements.expand(-1, len(x), 3, 3), each) for each in (x, y)
    ]
    return torch.einsum("nrji,nrj->nri", elements.expand(-1, len(x), 3, 3), model(*moved))


def drawn(group: Group, n: int, rows: int, seed: int = 1) -> Tensor:
    generator = seeded(seed)
    found = random_rotations(n * rows, generator=generator, dtype=torch.float64)
    found = found.reshape(n, rows, 3, 3)
    if group == "o3":
        found = found * (1 - 2 * torch.randint(2, (n, rows, 1, 1), generator=generator))
    return found


MATRIX, OTHER = normal(3, 3, seed=5), normal(3, 3, seed=6)
CONSTANT = normal(3, seed=7)


def mixed(x: Tensor, y: Tensor) -> Tensor:
    """l = 0, 1, 2 of even parity; the pseudovector behind `OTHER` has the same of odd parity; a
    constant is l = 1 of odd parity."""
    return x @ MATRIX.T + torch.linalg.cross(x, y, dim=-1) @ OTHER.T + CONSTANT


def expected(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """[rows] by irrep of O(3): of R^T A R x the mean square is |A|^2 |x|^2 / 3 for each part."""
    cross = torch.linalg.cross(x, y, dim=-1).square().sum(-1)
    _, turned, stretched = (part.square().sum() / 3 for part in parts_of(MATRIX))
    trace, odd_turned, odd_stretched = (part.square().sum() / 3 for part in parts_of(OTHER))
    square = x.square().sum(-1)
    return {
        "0o": trace * cross,
        "1e": turned * square,
        # The constant and the antisymmetric part are orthogonal: R^T (b x w) averages to 0.
        "1o": odd_turned * cross + CONSTANT.square().sum(),
        "2e": stretched * square,
        "2o": odd_stretched * cross,
    }


def test_a_quadrature_gives_the_closed_forms_to_rounding() -> None:
    x, y = normal(6, 3), normal(6, 3, seed=1)
    points = rotation_quadrature(6, "o3")
    values = pulled_back(mixed, points.rotations[:, None], x, y)
    found = irrep_powers(
        values, points.rotations[:, None], "o3", highest=3, quadrature=points.weights
    )
    assert tuple(found) == irreps_of("o3", 3)
    for name, power in expected(x, y).items():
        torch.testing.assert_close(found[name], power, rtol=1e-9, atol=1e-10)
    for name in ("3e", "3o"):
        assert float(found[name].abs().max()) < 1e-20
    split = decompose(values, torch.zeros_like(x), quadrature=points.weights)
    torch.testing.assert_close(torch.stack(list(found.values())).sum(0), split.equivariance)


def test_over_rotations_parities_fall_together() -> None:
    x, y = normal(4, 3), normal(4, 3, seed=1)
    points = rotation_quadrature(4)
    shared = points.rotations[:, None]
    values = pulled_back(mixed, shared, x, y)
    found = irrep_powers(values, shared, "so3", highest=2, quadrature=points.weights)
    assert list(found) == ["l=1", "l=2"]
    split = decompose(values, torch.zeros_like(x), quadrature=points.weights)
    torch.testing.assert_close(found["l=1"] + found["l=2"], split.equivariance)


@pytest.mark.parametrize("group", ["so3", "o3"])
@pytest.mark.parametrize("n", [3, 4, 7])
def test_independent_draws_are_unbiased(group: Group, n: int) -> None:
    rows = 20_000
    x, y = normal(1, 3).expand(rows, 3), normal(1, 3, seed=1).expand(rows, 3)
    elements = drawn(group, n, rows)
    found = irrep_powers(
        # A constant of the input's frame is the twirled part, which must not tell.
        pulled_back(mixed, elements, x, y) + 100 * x,
        elements,
        group,
        highest=3,
    )
    points = rotation_quadrature(8, group)
    exact = irrep_powers(
        pulled_back(mixed, points.rotations[:, None], x[:1], y[:1]),
        points.rotations[:, None],
        group,
        highest=3,
        quadrature=points.weights,
    )
    for name, powers in found.items():
        error = float(powers.std()) / rows**0.5
        assert abs(float(powers.mean() - exact[name][0])) < 5 * error, name


def test_the_cube_has_its_own_irreps() -> None:
    elements = octahedral_rotations(torch.float64)[:, None]
    x = normal(5, 3)
    trace, turned, stretched = parts_of(MATRIX)
    diagonal = torch.diag(stretched.diagonal())

    def powers(matrix: Tensor) -> dict[str, Tensor]:
        values = pulled_back(lambda a, b: a @ matrix.T, elements, x, x)
        return irrep_powers(values, elements, "octahedral")

    for matrix, names in (
        (trace, ()),
        (turned, ("T1",)),
        (diagonal, ("E",)),
        (stretched - diagonal, ("T2",)),
        (MATRIX, ("E", "T1", "T2")),
    ):
        found = powers(matrix)
        assert tuple(found) == irreps_of("octahedral", 0)
        values = pulled_back(lambda a, b, m=matrix: a @ m.T, elements, x, x)  # type: ignore[misc]
        split = decompose(values, torch.zeros_like(x), exhaustive=True)
        inside = sum((found[name] for name in names), start=torch.zeros(5, dtype=torch.float64))
        torch.testing.assert_close(inside, split.equivariance, atol=1e-12, rtol=1e-9)
    # x y z of a vector only changes its sign under quarter turns.
    product = torch.einsum("nrij,rj->nri", elements.expand(-1, 5, 3, 3), x).prod(-1)
    found = irrep_powers(product, elements, "octahedral")
    torch.testing.assert_close(found["A2"], x.prod(-1).square())


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_an_entry_of_a_representation_is_of_its_irrep_alone(seed: int, degree: int) -> None:
    points = rotation_quadrature(6)
    shared = points.rotations[:, None]
    matrix = normal(2 * degree + 1, 2 * degree + 1, seed=seed)
    values = (representation(degree, points.rotations) * matrix).sum((1, 2))[:, None]
    found = irrep_powers(values, shared, "so3", highest=3, quadrature=points.weights)
    for name, power in found.items():
        # Schur: the mean square of an entry is 1 / (2 l + 1).
        own = float(matrix.square().sum()) / (2 * degree + 1) if name == f"l={degree}" else 0.0
        assert float(power) == pytest.approx(own, rel=1e-9, abs=1e-12)


def test_the_spectrum_gives_the_mean_lie_derivative() -> None:
    # Gruver et al. (arXiv 2210.02984) measure the derivative by small rotations about an axis. Over
    # three axes and all orientations it is the Casimir operator: the sum of l (l + 1) times the
    # power of l.
    x, y = normal(3, 3), normal(3, 3, seed=1)
    points = rotation_quadrature(6)
    shared = points.rotations[:, None]
    found = irrep_powers(
        pulled_back(mixed, shared, x, y), shared, "so3", highest=3, quadrature=points.weights
    )
    angle, derivative = 1e-4, torch.zeros(3, dtype=torch.float64)
    for axis in range(3):
        generator = torch.zeros(3, 3, dtype=torch.float64)
        generator[(axis + 1) % 3, (axis + 2) % 3], generator[(axis + 2) % 3, (axis + 1) % 3] = -1, 1
        turned = [
            pulled_back(mixed, torch.matrix_exp(sign * angle * generator) @ shared, x, y)
            for sign in (1.0, -1.0)
        ]
        change = ((turned[0] - turned[1]) / (2 * angle)).square().sum(-1)
        derivative += torch.tensordot(points.weights, change, dims=1)
    casimir = sum(
        (degree * (degree + 1) * found[f"l={degree}"] for degree in (1, 2, 3)),
        start=torch.zeros(3, dtype=torch.float64),
    )
    # The next term is smaller by the square of the angle.
    torch.testing.assert_close(casimir, derivative, rtol=1e-6, atol=1e-8)


def test_masked_entries_do_not_count() -> None:
    elements = drawn("so3", 4, 5)
    values = pulled_back(mixed, elements, normal(5, 3), normal(5, 3, seed=1))
    mask = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0])
    spoilt = values.clone()
    spoilt[:, mask == 0] = torch.nan
    whole = irrep_powers(values, elements, "so3")
    found = irrep_powers(spoilt, elements, "so3", weights=mask)
    for name, powers in found.items():
        torch.testing.assert_close(powers, whole[name] * mask)
    twice = irrep_powers(values, elements, "so3", weights=torch.full((5,), 2.0))
    torch.testing.assert_close(twice["l=2"], 2 * whole["l=2"])


def test_too_few_elements_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 3 rotations, not 2"):
        irrep_powers(normal(2, 4, 3), drawn("so3", 2, 4), "so3")
    with pytest.raises(UsageError, match="all 24 of them, not 4"):
        irrep_powers(normal(4, 4, 3), octahedral_rotations(torch.float64)[:4, None], "octahedral")
