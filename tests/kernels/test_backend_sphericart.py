"""sphericart's harmonics are e3nn's, with both derivatives."""

from importlib.util import find_spec

import pytest
import torch

from equivbench.kernels.backend import UnsupportedError
from equivbench.kernels.backends.sphericart import Sphericart
from equivbench.kernels.measuring import prepare
from equivbench.kernels.operations import Case, Convolution, SphericalHarmonics

CPU = torch.device("cpu")


@pytest.mark.skipif(
    Sphericart().missing(CPU) is not None, reason="sphericart-torch is not installed"
)
@pytest.mark.parametrize("lmax", [1, 4])
def test_value_and_both_derivatives_are_the_references(lmax: int) -> None:
    case = Case("harmonics", SphericalHarmonics(lmax), {"edges": 60, "nodes": 12}, 2, "test")
    prepare(case, "double_backward", "sphericart", dtype=torch.float64)  # raises if one is wrong


def test_other_operations_are_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="convolution"):
        Sphericart().build(Convolution((4, 4), 1, 1), dtype=torch.float32, device=CPU)


@pytest.mark.skipif(find_spec("sphericart") is not None, reason="sphericart is installed")
def test_absence_says_what_to_install() -> None:
    assert "pip install sphericart-torch" in (Sphericart().missing(CPU) or "")
