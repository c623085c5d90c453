"""The e3nn backends against the references: another library agrees on what the operations are."""

import pytest
import torch
from test_backend_plain import CPU, SMALL, disagreements

from equivbench.environment import cxx_compiler
from equivbench.kernels.backend import UnsupportedError, backend
from equivbench.kernels.operations import Case, case

DOES = (
    *("convolution", "spherical-harmonics", "linear", "steerable-convolution"),
    *("edge-product", "symmetric-contraction", "so2-convolution"),
)


@pytest.mark.parametrize(
    "one", [one for one in SMALL if one.operation.name in DOES], ids=lambda one: one.name
)
@pytest.mark.parametrize(
    ("dtype", "allowed"),
    [(torch.float64, 1e-12), (torch.float32, 3e-5)],
    ids=["float64", "float32"],
)
def test_it_is_the_operation_to_rounding_with_its_derivatives(
    one: Case, dtype: torch.dtype, allowed: float
) -> None:
    kernel = backend("e3nn").build(one.operation, dtype=dtype, device=CPU)
    # As for the torch backend.
    assert max(disagreements(kernel, one, dtype)) < allowed
    assert kernel.method.startswith("e3nn ")


@pytest.mark.parametrize("name", ["e3nn", "e3nn-compiled"])
def test_what_e3nn_does_not_have_is_said(name: str) -> None:
    with pytest.raises(UnsupportedError, match="neighbour-search"):
        backend(name).build(case("neighbours-5a").operation, dtype=torch.float32, device=CPU)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor"
)  # Dynamo asks adapted inputs, which are not leaves
@pytest.mark.skipif(cxx_compiler() is None, reason="torch.compile needs a C++ compiler")
def test_compiled_it_has_right_first_derivatives_and_declares_no_second() -> None:
    one = next(one for one in SMALL if one.name == "linear-c64-l2")
    kernel = backend("e3nn-compiled").build(one.operation, dtype=torch.float64, device=CPU)
    assert (kernel.compiles, kernel.max_derivatives) == (True, 1)
    assert max(disagreements(kernel, one, torch.float64)) < 1e-12  # rounding


def test_without_a_compiler_it_is_missing_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equivbench.kernels.backends.e3nn.cxx_compiler", lambda: None)
    assert "C++ compiler" in str(backend("e3nn-compiled").missing(CPU))
    assert backend("e3nn").missing(CPU) is None
