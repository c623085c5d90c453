"""Whether a backend can be there, told from its declaration alone."""

from dataclasses import replace

import pytest
import torch

from equivbench.kernels.backend import TableBackend, backend
from equivbench.kernels.backends import BACKENDS, absent, does_not_do
from equivbench.kernels.operations import Convolution
from equivbench.specs import KernelBackendSpec


def test_a_backend_that_needs_nothing_is_there():
    assert absent(KernelBackendSpec("one", "", "m:f")) is None
    assert absent(KernelBackendSpec("one", "", "m:f", needs=("math", "importlib.util"))) is None


def test_what_is_missing_is_named_with_the_command_that_brings_it():
    spec = KernelBackendSpec(
        "one",
        "",
        "m:f",
        needs=("math", "no_such_module", "no_parent.child"),
        install="pip install one",
    )
    reason = absent(spec)
    assert reason is not None
    assert "no_such_module, no_parent.child" in reason
    assert reason.endswith("pip install one")


def test_a_device_it_does_not_run_on_is_named():
    spec = KernelBackendSpec("one", "", "m:f", devices=("cuda",))
    assert absent(spec) is None
    assert absent(spec, "cuda:1") is None
    assert absent(spec, "cpu") == "one runs on cuda only"


@pytest.mark.parametrize("spec", BACKENDS, ids=lambda spec: spec.name)
def test_the_operations_that_are_declared_are_those_of_the_table(spec: KernelBackendSpec) -> None:
    table = backend(spec.name)
    assert isinstance(table, TableBackend)
    assert sorted(spec.operations) == sorted(kind.name for kind, _ in table.kernels)


@pytest.mark.parametrize("spec", BACKENDS, ids=lambda spec: spec.name)
def test_kernels_have_the_derivatives_that_are_declared(spec: KernelBackendSpec) -> None:
    cpu, operation = torch.device("cpu"), Convolution((2, 2), 1, 1)
    if operation.name not in spec.operations or backend(spec.name).missing(cpu) is not None:
        pytest.skip("no convolution of it here")
    kernel = backend(spec.name).build(operation, dtype=torch.float64, device=cpu)
    assert kernel.max_derivatives == spec.max_derivatives


def test_what_a_backend_does_not_do_is_said_with_those_that_do_it() -> None:
    assert does_not_do("e3nn", "painn-message") == (
        "e3nn does not do 'painn-message'; choose among torch, fused"
    )
    assert "choose among torch" in does_not_do("fused", "linear", ["cube-convolution"])
    assert "none here" in does_not_do("e3nn", "no-such-operation")


def test_where_a_backend_does_not_do_it_is_said_if_it_does_so_elsewhere() -> None:
    said = does_not_do("openequivariance", "convolution", device="cpu")
    assert said.startswith("openequivariance does not do 'convolution' on a CPU; choose among ")
    assert "flashcart" not in said
    assert "on a" not in does_not_do("e3nn", "painn-message", device="cuda")


def test_what_is_declared_for_a_cpu_alone_is_not_done_on_a_gpu() -> None:
    spec = KernelBackendSpec("one", "", "m:f", operations=("a", "b"), cpu_operations=("b",))
    assert (spec.operations_on("cpu"), spec.operations_on("cuda")) == ({"a", "b"}, {"a"})
    assert replace(spec, devices=("cpu",)).operations_on("cuda") == set()
