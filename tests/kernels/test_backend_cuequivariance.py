"""cuEquivariance agrees with the reference on a CPU, and never falls back unsaid."""

from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from equivbench.errors import FailedError
from equivbench.kernels.backend import UnsupportedError
from equivbench.kernels.backends.cuequivariance import (
    CuEquivariance,
    contraction_polynomial,
    convolution,
    convolution_polynomial,
    uniform,
)
from equivbench.kernels.measuring import prepare
from equivbench.kernels.operations import (
    Case,
    Convolution,
    RadialBasis,
    SphericalHarmonics,
    SymmetricContraction,
)

CPU = torch.device("cpu")
needs_library = pytest.mark.skipif(
    find_spec("cuequivariance_torch") is None, reason="cuequivariance-torch is not installed"
)
SIZES = {"nodes": 12, "edges": 60, "elements": 3}
CASES = [
    Case("convolution", Convolution((4, 4, 4), 2, 2), SIZES, 2, "test"),
    Case("unequal", Convolution((6, 4, 2), 2, 1), SIZES, 2, "test"),
    Case("no parity", Convolution((4, 4), 1, 2, parity=False), SIZES, 2, "test"),
    Case("harmonics", SphericalHarmonics(4), SIZES, 2, "test"),
    Case("contraction", SymmetricContraction(4, 2, 1), SIZES, 2, "test"),
    Case("two factors", SymmetricContraction(3, 1, 2, 2), SIZES, 2, "test"),
]


@needs_library
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_value_and_both_derivatives_are_the_references(case: Case) -> None:
    prepared = prepare(
        case, "double_backward", "cuequivariance", dtype=torch.float64
    )  # raises if one is wrong
    assert prepared.method.endswith(" naive")


@needs_library
def test_what_goes_to_the_gpu_is_uniform_and_the_same_function() -> None:
    from cuequivariance_torch import SegmentedPolynomial

    operation = Convolution((6, 4, 2), 2, 2)
    polynomial = uniform(convolution_polynomial(operation), operation.channels)
    squeezed = polynomial.squeeze_modes()
    assert all(
        operand.all_same_segment_shape() and operand.ndim <= 1 for operand in squeezed.operands
    )
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "x": (5, operation.source_size),
        "harmonics": (5, 9),
        "weights": (5, operation.weight_size),
    }
    inputs = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    edges = torch.arange(5).expand(2, 5)
    evaluate = SegmentedPolynomial(polynomial, method="naive", math_dtype=torch.float64)
    (found,) = evaluate([inputs["weights"], inputs["x"], inputs["harmonics"]])
    torch.testing.assert_close(found, operation.reference(**inputs, edge_index=edges))


@needs_library
def test_a_contraction_is_uniform_as_it_is() -> None:
    polynomial = contraction_polynomial(SymmetricContraction(4, 2, 1))
    assert len(polynomial.operations) == 3
    assert all(
        operand.all_same_segment_shape() and operand.ndim == 1 for operand in polynomial.operands
    )


@needs_library
@pytest.mark.skipif(
    find_spec("cuequivariance_ops_torch") is not None, reason="the CUDA kernels are installed"
)
def test_falling_back_on_a_gpu_is_an_error() -> None:
    with pytest.raises(FailedError, match="uniform_1d"):
        convolution(CASES[0].operation, SimpleNamespace(device=torch.device("cuda"), dtype=None))


@needs_library
def test_other_operations_are_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="radial-basis"):
        CuEquivariance().build(RadialBasis(8, 5.0), dtype=torch.float32, device=CPU)


@pytest.mark.skipif(
    find_spec("cuequivariance_ops_torch") is not None, reason="the CUDA kernels are installed"
)
def test_absence_says_what_to_install() -> None:
    missing = CuEquivariance().missing(torch.device("cuda")) or ""
    assert "pip install" in missing
    assert "cue-cu1" in missing
