"""Harmonics where there is no direction: defined, with both derivatives, on every backend."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from equivbench.kernels.backend import UnsupportedError, backend
from equivbench.kernels.measuring import why_absent
from equivbench.kernels.operations import SphericalHarmonics
from equivbench.registry import KERNEL_BACKENDS

CPU = torch.device("cpu")
HARMONICS = SphericalHarmonics(3)
VECTORS = ((0.3, -1.2, 0.5), (0.0, 0.0, 0.0), (0.0, -2.0, 0.0), (0.0, 0.0, 0.0))
NOWHERE = [1, 3]


@pytest.fixture(params=["reference", *KERNEL_BACKENDS.entries()])
def harmonics(request: pytest.FixtureRequest):
    if request.param == "reference":
        return HARMONICS.reference
    if (reason := why_absent(request.param, CPU)) is not None:
        pytest.skip(reason)
    if KERNEL_BACKENDS.get(request.param).slow_to_build:
        pytest.skip("the same functions, compiled")
    try:
        return backend(request.param).build(HARMONICS, dtype=torch.float64, device=CPU)
    except UnsupportedError as error:
        pytest.skip(str(error))


def test_they_are_their_mean_there_and_do_not_change(harmonics) -> None:
    vectors = torch.tensor(VECTORS, dtype=torch.float64, requires_grad=True)
    output = harmonics(vectors=vectors)
    mean = torch.zeros(2, 16, dtype=torch.float64)
    mean[:, 0] = 1.0
    assert torch.equal(output[NOWHERE], mean)
    weights = torch.linspace(-1, 2, output.numel(), dtype=torch.float64).view_as(output)
    (first,) = torch.autograd.grad((output * weights).sin().sum(), vectors, create_graph=True)
    (second,) = torch.autograd.grad((first * vectors.detach().cos()).sum(), vectors)
    for derivative in (first, second):
        assert derivative.isfinite().all()
        assert not derivative[NOWHERE].any()
        assert derivative[0].abs().min() > 0


def test_the_others_are_as_without_them(harmonics) -> None:
    def derivatives(chosen: list[int]) -> list[Tensor]:
        vectors = torch.tensor(VECTORS, dtype=torch.float64)[chosen].requires_grad_()
        output = harmonics(vectors=vectors)
        (first,) = torch.autograd.grad(output.exp().sum(), vectors, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), vectors)
        rows = [chosen.index(0), chosen.index(2)]
        return [one[rows] for one in (output, first, second)]

    for found, wanted in zip(derivatives([0, 1, 2, 3]), derivatives([0, 2]), strict=True):
        # The same numbers, in sums of another length.
        torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)
