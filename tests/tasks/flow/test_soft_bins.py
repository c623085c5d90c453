"""Distance bins: Gaussians about all centres, of which the far ones are left out."""

import pytest
import torch
from torch import Tensor

from equivbench.tasks.flow.networks.features import FARTHEST, NEAREST, soft_bins

BINS = pytest.mark.parametrize("bins", [2, 8, 9, 16, 30])


def all_bins(distance: Tensor, bins: int) -> Tensor:
    """Each Gaussian, however far away."""
    spacing = (FARTHEST - NEAREST) / (bins - 1)
    centres = torch.linspace(NEAREST, FARTHEST, bins, dtype=distance.dtype)
    return torch.exp(-(((distance.clamp(max=FARTHEST)[..., None] - centres) / spacing) ** 2))


def drawn(dtype: torch.dtype) -> Tensor:
    """Within the range, on centres of 30 bins and half way between, and beyond both ends."""
    inside = 4 * torch.rand(40, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    steps = torch.arange(-1, 61, dtype=torch.float64) * (FARTHEST - NEAREST) / 58 + NEAREST
    ends = torch.tensor([0.0, 1e-6, NEAREST, FARTHEST, 50.0, 1e6], dtype=torch.float64)
    return torch.cat([inside.flatten(), steps.clamp(min=0), ends]).to(dtype)


@BINS
def test_what_is_left_out_is_below_the_rounding_of_float32(bins: int) -> None:
    distance = drawn(torch.float64)
    found, wanted = soft_bins(distance, bins), all_bins(distance, bins)
    assert found.shape == (*distance.shape, bins)
    # exp(-4.5^2) = 1.6e-9, and what few bins have no farther ones.
    assert float((found - wanted).abs().max()) < (2e-9 if bins > 9 else 1e-14)
    single = soft_bins(drawn(torch.float32), bins)
    # A distance of up to 3 nm, in spacings of .1 nm and more, is rounded to 4e-6 of one; the
    # slope is at most 0.86.
    assert (
        float((single.double() - all_bins(drawn(torch.float32).double(), bins)).abs().max()) < 5e-6
    )


@BINS
def test_gradients_are_those_of_all_bins(bins: int) -> None:
    generator = torch.Generator().manual_seed(1)
    distance = drawn(torch.float64)
    weights = torch.randn(*distance.shape, bins, generator=generator, dtype=torch.float64)
    slopes, curvatures = [], []
    for function in (soft_bins, all_bins):
        x = distance.clone().requires_grad_()
        (slope,) = torch.autograd.grad((function(x, bins) * weights).sum(), x, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), x)
        slopes.append(slope.detach())
        curvatures.append(curvature)
    spacing = (FARTHEST - NEAREST) / (bins - 1)
    # 2 u exp(-u^2) = 1.4e-8 and its slope, 1.3e-7, at u = 4.5, times weights of at most 5, and
    # somewhat less on the other side.
    assert float((slopes[0] - slopes[1]).abs().max()) * spacing < 1.5e-7
    assert float((curvatures[0] - curvatures[1]).abs().max()) * spacing**2 < 1.5e-6
    assert float(slopes[1].abs().max()) * spacing > 0.5


def test_a_distance_that_is_no_number_has_no_bins_that_are_numbers() -> None:
    found = soft_bins(torch.tensor([0.5, float("nan")]), 16)
    assert bool(found[0].isfinite().all())
    assert bool(found[1].isnan().any())
