"""An operation in a network, on a backend by name."""

import copy
import pickle

import pytest
import torch
import toy_kernels as toys
from toy_kernels import registered, right

from equivbench.errors import FailedError, UsageError
from equivbench.kernels.backend import Kernel, OnBackend, built_for
from equivbench.kernels.checking import WrongKernelError
from equivbench.kernels.first_use import check_kernels
from equivbench.kernels.operations import Convolution
from equivbench.registry import KERNEL_BACKENDS, register_kernel_backend

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


def test_a_gpus_kernels_are_built_where_the_network_arrives():
    built = []

    class Elsewhere:
        def missing(self, device):
            return None

        def build(self, operation, *, dtype, device):
            built.append((dtype, device.type))
            return Kernel(right(operation), "by hand")

    before = KERNEL_BACKENDS.entries()
    try:
        register_kernel_backend("elsewhere", summary="a test", devices=("meta",))(Elsewhere)
        network = torch.nn.Sequential(OnBackend(OPERATION, "elsewhere"))
        assert built == []
        with pytest.raises(FailedError, match="elsewhere cannot run on cpu"):
            network[0](**inputs(torch.float32))
        network.to("meta")
        assert built == [(torch.float32, "meta")]
        register_kernel_backend("both", summary="a test", devices=("cpu", "meta"))(Elsewhere)
        built.clear()
        with built_for(torch.device("meta")):
            OnBackend(OPERATION, "both").to("meta")
        assert built == [(torch.float32, "meta")]
    finally:
        KERNEL_BACKENDS.restore(before)


def test_no_network_trains_on_kernels_that_compute_something_else():
    def once_only(operation):
        return Kernel(toys.zero_second_derivative(operation), "by hand", max_derivatives=1)

    for kernel in (right, toys.transposed, once_only):
        with registered(mine=kernel):
            check_kernels(torch.nn.Sequential(OnBackend(OPERATION, "mine")))
    for kernel in (
        toys.wrong_sign,
        toys.skipped_backward,
        toys.zero_second_derivative,
        toys.missing_second_derivative,
    ):
        with (
            registered(mine=kernel),
            pytest.raises(WrongKernelError, match=r"kernel backend mine is wrong on 'convolution'"),
        ):
            check_kernels(torch.nn.Sequential(OnBackend(OPERATION, "mine")).double())
    with registered(mine=toys.raises_an_error), pytest.raises(FailedError, match="inside"):
        check_kernels(torch.nn.Sequential(OnBackend(OPERATION, "mine")))
