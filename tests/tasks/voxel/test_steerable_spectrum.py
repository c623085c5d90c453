"""Low-pass filters and resampling: exact on what the coarser grid resolves, isotropic in what they
leave out."""

import pytest
import torch

from equivbench.symmetry.grids import permute_grid
from equivbench.symmetry.rotations import octahedral_rotations
from equivbench.tasks.voxel.networks.steerable import Oversampled, Resample


def wave(k: tuple[int, int, int], size: int) -> torch.Tensor:
    """cos(2 pi k.r / box + 1) at the centres of size^3 voxels about the box's centre, float64."""
    r = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / size
    phase = k[0] * r[:, None, None] + k[1] * r[:, None] + k[2] * r
    return torch.cos(2 * torch.pi * phase + 1)[None, None]


# Sums over at most 16^3 terms in float64: 1e-12 is a hundred times their rounding.
@pytest.mark.parametrize("k", [(0, 0, 0), (1, 0, 0), (1, -2, 1), (0, 2, -2)])
@pytest.mark.parametrize("size", [6, 8, 9])
def test_resolved_waves_are_sampled_at_the_new_centres(k: tuple[int, int, int], size: int) -> None:
    if 4 * sum(part**2 for part in k) >= size**2:
        pytest.skip("the coarser grid does not hold this wave")
    torch.testing.assert_close(Resample(2)(wave(k, size)), wave(k, 2 * size), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        Resample(1 / 2)(wave(k, 2 * size)), wave(k, size), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(Resample(1)(wave(k, size)), wave(k, size), rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [(4, 0, 0), (3, 3, 1), (-4, 4, 4)])
def test_waves_from_the_ball_s_surface_on_are_left_out(k: tuple[int, int, int]) -> None:
    # (3, 3, 1) lies in the cube of what 8^3 voxels resolve, but not in the ball.
    assert float(Resample(1)(wave(k, 8)).abs().max()) < 1e-12
    assert float(Resample(1 / 2)(wave(k, 16)).abs().max()) < 1e-12


def test_halving_undoes_doubling_of_filtered_fields() -> None:
    field = Resample(1)(
        torch.randn(2, 3, 8, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    )
    torch.testing.assert_close(Resample(1 / 2)(Resample(2)(field)), field, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "layer", [Resample(1), Resample(1 / 2), Resample(2)], ids=["low-pass", "half", "double"]
)
def test_cube_rotations_commute(layer: torch.nn.Module) -> None:
    field = torch.randn(
        1, 2, 8, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    for element in octahedral_rotations(torch.float64)[:, None]:
        torch.testing.assert_close(
            layer(permute_grid(field, element)),
            permute_grid(layer(field), element),
            rtol=0,
            atol=1e-12,
        )


class Square(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x**2


def test_products_are_not_folded_back() -> None:
    # cos^2 has the frequency 6, beyond the 4 of eight voxels: sampled there, it would appear at 2.
    # On 11 voxels it appears at 5.
    field = wave((3, 0, 0), 8)
    torch.testing.assert_close(
        Oversampled(Square())(field), torch.full_like(field, 0.5), rtol=0, atol=1e-12
    )
    assert float((Square()(field) - 0.5).abs().max()) > 0.1


def test_gradients_are_those_of_a_linear_map_and_the_dtype_is_kept() -> None:
    x = torch.randn(
        1,
        1,
        4,
        4,
        4,
        dtype=torch.float64,
        requires_grad=True,
        generator=torch.Generator().manual_seed(0),
    )
    for layer in (Resample(1), Resample(1 / 2), Resample(2), Oversampled(torch.nn.SiLU())):
        assert torch.autograd.gradcheck(layer, (x,))
        assert layer(x.detach().bfloat16()).dtype == torch.bfloat16
