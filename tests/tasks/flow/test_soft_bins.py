"""Distance bins: Gaussians about all centres, of which those far away are all alike."""

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
def test_far_bins_are_those_of_the_whole_sum_to_rounding(bins: int) -> None:
    distance = drawn(torch.float64)
    found, wanted = soft_bins(distance, bins), all_bins(distance, bins)
    assert found.shape == (*distance.shape, bins)
    # exp(-6^2) = 2.3e-16, and a place in float64 of up to 30 spacings.
    assert float((found - wanted).abs().max()) < 1e-14
    single, wanted = soft_bins(drawn(torch.float32), bins), all_bins(distance, bins)
    assert single.dtype == torch.float32
    # Distances of up to 4 nm, rounded to 2^-24 of themselves, in spacings of .1 nm and more: 2e-6
    # to 4e-6 of one, and the slope is at most 0.86.
    assert float((single.double() - wanted).abs().max()) < 5e-6


@BINS
def test_no_bin_is_below_the_normal_range(bins: int) -> None:
    for dtype in (torch.float32, torch.float64):
        assert float(soft_bins(drawn(dtype), bins).min()) > 1e6 * torch.finfo(dtype).tiny


@BINS
def test_gradients_are_those_of_the_whole_sum_to_rounding(bins: int) -> None:
    generator = torch.Generator().manual_seed(1)
    distance = drawn(torch.float64)
    weights = torch.randn(*distance.shape, bins, generator=generator, dtype=torch.float64)
    found = []
    for function in (soft_bins, all_bins):
        x = distance.clone().requires_grad_()
        (slope,) = torch.autograd.grad((function(x, bins) * weights).sum(), x, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), x)
        found.append((slope.detach(), curvature))
    spacing = (FARTHEST - NEAREST) / (bins - 1)
    slopes, curvatures = zip(*found, strict=True)
    # 2 u exp(-u^2) is 3e-15 at u = 6 and its slope 3e-14, times weights of at most 5; the places
    # are rounded to 3e-15 of a spacing.
    assert float((slopes[0] - slopes[1]).abs().max()) * spacing < 2e-13
    assert float((curvatures[0] - curvatures[1]).abs().max()) * spacing**2 < 1e-12
    assert float(slopes[1].abs().max()) * spacing > 0.5


def test_a_distance_that_is_no_number_has_no_bins_that_are_numbers() -> None:
    found = soft_bins(torch.tensor([0.5, float("nan")]), 16)
    assert bool(found[0].isfinite().all())
    assert bool(found[1].isnan().all())
