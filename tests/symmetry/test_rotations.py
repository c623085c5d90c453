"""The samplers: Haar measure on SO(3) and the exact cube group."""

import math

import pytest
import torch
from scipy import stats

from equivbench.symmetry.rotations import octahedral_rotations, random_rotations

N = 20_000


@pytest.fixture(scope="module")
def haar() -> torch.Tensor:
    return random_rotations(N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_rotations_are_orthogonal_with_determinant_one(haar: torch.Tensor) -> None:
    # A handful of products of numbers below 1: a few eps.
    torch.testing.assert_close(
        haar @ haar.transpose(1, 2),
        torch.eye(3, dtype=torch.float64).expand(N, 3, 3),
        atol=1e-14,
        rtol=0,
    )
    torch.testing.assert_close(
        torch.linalg.det(haar), torch.ones(N, dtype=torch.float64), atol=1e-14, rtol=0
    )


def test_moments_are_those_of_haar_measure(haar: torch.Tensor) -> None:
    # E R = 0, E R_ij R_kl = delta_ik delta_jl / 3, E R_ij^4 = 1/5. Six standard errors of N draws
    # of numbers below 1.
    tolerance = 6 / math.sqrt(N)
    assert haar.mean(0).abs().max() < tolerance
    second = torch.einsum("nij,nkl->ijkl", haar, haar) / N
    expected = torch.einsum("ik,jl->ijkl", torch.eye(3), torch.eye(3)).double() / 3
    assert (second - expected).abs().max() < tolerance
    assert (haar**4).mean(0).sub(0.2).abs().max() < tolerance


def test_angle_follows_its_haar_density(haar: torch.Tensor) -> None:
    # The angle of a Haar rotation has density (1 - cos) / pi; three uniform Euler angles fail this.
    angle = torch.acos(((haar.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1))
    assert (
        stats.kstest(
            angle.numpy(),
            lambda a: (a - torch.sin(torch.as_tensor(a)).numpy()) / math.pi,  # type: ignore[return-value]
        ).pvalue
        > 1e-3
    )


def test_measure_is_left_and_right_invariant(haar: torch.Tensor) -> None:
    fixed = random_rotations(1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)[0]
    # Independent halves, one moved: every matrix element keeps its distribution.
    for moved in (fixed @ haar[N // 2 :], haar[N // 2 :] @ fixed):
        for i, j in ((0, 0), (1, 2), (2, 1)):
            assert (
                stats.ks_2samp(haar[: N // 2, i, j].numpy(), moved[:, i, j].numpy()).pvalue > 1e-3
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_draws_do_not_depend_on_the_dtype(dtype: torch.dtype) -> None:
    same = [
        random_rotations(5, generator=torch.Generator().manual_seed(3), dtype=kind)
        for kind in (dtype, torch.float64)
    ]
    assert torch.equal(same[0], same[1].to(dtype))


def test_default_dtype_is_torchs_and_global_seed_is_respected() -> None:
    torch.manual_seed(0)
    first = random_rotations(2)
    torch.manual_seed(0)
    assert torch.equal(first, random_rotations(2))
    assert first.dtype == torch.get_default_dtype()
    assert random_rotations(0).shape == (0, 3, 3)


def test_cube_group_is_a_group_of_24_exact_rotations() -> None:
    group = octahedral_rotations(dtype=torch.int64)
    assert group.shape == (24, 3, 3)
    assert torch.equal(group[0], torch.eye(3, dtype=torch.int64))
    assert set(group.unique().tolist()) == {-1, 0, 1}
    members = {tuple(g.flatten().tolist()) for g in group}
    assert len(members) == 24
    assert {tuple((a @ b).flatten().tolist()) for a in group for b in group} == members
    assert torch.equal(
        torch.linalg.det(group.double()).round(), torch.ones(24, dtype=torch.float64)
    )
