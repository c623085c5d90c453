"""flashcart's Cartesian convolution is e3nn's after a change of basis; its Triton kernels need a
CUDA device."""

from importlib.util import find_spec

import pytest
import torch

from equivbench.errors import FailedError
from equivbench.kernels.backend import UnsupportedError
from equivbench.kernels.backends.flashcart import (
    Flashcart,
    basis,
    cartesian_kernel,
    convolution,
    path_order,
)
from equivbench.kernels.measuring import prepare
from equivbench.kernels.operations import Case, Convolution
from equivbench.kernels.problem import make_inputs

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
needs_library = pytest.mark.skipif(
    find_spec("flashcart") is None, reason="flashcart is not installed"
)
OPERATION = Convolution((4, 4, 4), 2, 1)
CASE = Case("convolution", OPERATION, {"nodes": 12, "edges": 60}, 2, "test")


def test_each_path_is_in_its_order_once() -> None:
    assert sorted(map(str, path_order(OPERATION))) == sorted(map(str, OPERATION.paths))


@needs_library
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_bases_span_the_same_space(degree: int) -> None:
    # Condition numbers are 1 to 3; a wrong order of components would leave a singular fit.
    assert torch.linalg.cond(basis(degree)) < 10


@needs_library
def test_convolution_and_gradients_are_the_references() -> None:
    # In plain torch, which flashcart has on a CPU: the bases, the order and the factors are the
    # same for its kernels.
    kernel = cartesian_kernel(OPERATION, torch.empty(0, dtype=torch.float64))
    inputs = make_inputs(CASE, dtype=torch.float64, device=CPU)
    leaves = {name: inputs[name].requires_grad_() for name in OPERATION.differentiable}
    found, expected = kernel(**inputs), OPERATION.reference(**inputs)
    torch.testing.assert_close(found, expected)
    cotangent = torch.randn(
        found.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    gradients = [
        torch.autograd.grad(one, list(leaves.values()), cotangent) for one in (found, expected)
    ]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_what_it_lacks_is_unsupported() -> None:
    for operation in (Convolution((4, 2), 1, 1), Convolution((4, 4), 1, 1, parity=False)):
        with pytest.raises(UnsupportedError, match="equal channels"):
            convolution(operation, torch.empty(0))
    with pytest.raises(FailedError, match="flashcart runs on cuda only"):
        Flashcart().build(OPERATION, dtype=torch.float32, device=CPU)


@pytest.mark.cuda
@needs_library
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_its_kernels_are_right() -> None:
    prepare(CASE, "double_backward", "flashcart", device=CUDA)  # raises if one is wrong
