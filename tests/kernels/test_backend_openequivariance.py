"""What OpenEquivariance is told; its kernels need a CUDA device."""

import pytest
import torch
from e3nn import o3

from equivbench.errors import FailedError
from equivbench.kernels.backend import UnsupportedError
from equivbench.kernels.backends.openequivariance import OpenEquivariance, irreps
from equivbench.kernels.measuring import prepare
from equivbench.kernels.operations import Case, Convolution, SphericalHarmonics

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
needs_library = pytest.mark.skipif(
    OpenEquivariance().missing(CUDA) is not None, reason="needs openequivariance and a CUDA device"
)


def test_irreps_have_the_stated_sizes() -> None:
    operation = Convolution((6, 4, 2), 3, 2)
    source, edge, target = (o3.Irreps(one).dim for one in irreps(operation))
    assert (source, edge, target) == (operation.source_size, 16, operation.target_size)


def test_other_operations_and_devices_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="spherical-harmonics"):
        OpenEquivariance().build(SphericalHarmonics(2), dtype=torch.float32, device=CUDA)
    with pytest.raises(FailedError, match="openequivariance runs on cuda only"):
        OpenEquivariance().build(Convolution((4, 4), 1, 1), dtype=torch.float32, device=CPU)


@pytest.mark.cuda
@needs_library
@pytest.mark.parametrize("channels", [(32, 32, 32), (64, 32, 32)])
def test_value_and_both_derivatives_are_the_references(channels: tuple[int, ...]) -> None:
    case = Case("convolution", Convolution(channels, 2, 2), {"nodes": 40, "edges": 400}, 2, "test")
    prepare(case, "double_backward", "openequivariance", device=CUDA)  # raises if one is wrong
