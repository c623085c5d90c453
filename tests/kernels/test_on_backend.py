"""An operation in a network, on a backend by name."""

import copy
import pickle

import pytest
import torch

from equivbench.errors import FailedError, UsageError
from equivbench.kernels.backend import OnBackend
from equivbench.kernels.operations import Convolution

OPERATION = Convolution((2, 2), 1, 1)


def inputs(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = {
        "x": (3, OPERATION.source_size),
        "harmonics": (4, 4),
        "weights": (4, OPERATION.weight_size),
    }
    drawn = {
        name: torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype)
        for name, size in sizes.items()
    }
    return {**drawn, "edge_index": torch.tensor([[0, 1, 2, 0], [1, 0, 0, 2]])}


def test_each_precision_has_a_kernel_of_its_own():
    module = OnBackend(OPERATION, "torch")
    single, double = module(**inputs(torch.float32)), module.double()(**inputs(torch.float64))
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    # float32 rounding of sums of a few terms of order one.
    assert torch.allclose(single.double(), double, atol=1e-5)


def test_kernels_are_neither_copied_nor_pickled_nor_saved():
    module = OnBackend(OPERATION, "torch")
    expected = module(**inputs(torch.float32))
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert not {id(kernel) for kernel in twin._kernels.values()} & {
            id(kernel) for kernel in module._kernels.values()
        }
        assert torch.equal(twin(**inputs(torch.float32)), expected)
    assert module.state_dict() == {}


def test_a_network_is_compiled_whole_whatever_was_called_before():
    module = torch.nn.Sequential(OnBackend(OPERATION, "torch"))
    compiled = torch.compile(
        lambda **tensors: module[0](**tensors), backend="eager", fullgraph=True
    )
    assert torch.equal(compiled(**inputs(torch.float32)), module[0](**inputs(torch.float32)))


def test_a_backend_that_is_not_there_says_so_as_the_network_is_built():
    with pytest.raises(UsageError, match="torch"):
        OnBackend(OPERATION, "trch")
    with pytest.raises(FailedError, match="openequivariance cannot run on cpu"):
        OnBackend(OPERATION, "openequivariance")


def test_a_kernel_for_another_precision_can_be_built_ahead():
    module = OnBackend(OPERATION, "torch")
    module.prepare(torch.float64)
    built = dict(module._kernels)
    assert {dtype for dtype, _ in built} == {torch.float32, torch.float64}
    module.double().prepare()
    assert module._kernels == built
