"""Every backend on a GPU against the float64 reference, and its calls in a CUDA graph; the most
valuable first, for a call that is cut short."""

from __future__ import annotations

import pytest
import torch
from on_device import DEVICE, IS_GPU, needs_device, needs_gpu

from equivbench.kernels.backend import UnsupportedError, backend
from equivbench.kernels.backends import BACKENDS
from equivbench.kernels.ceilings import measure_ceilings
from equivbench.kernels.first_use import check_first_use
from equivbench.kernels.measuring import prepare, why_absent
from equivbench.kernels.operations import (
    CASES,
    Case,
    Convolution,
    EdgeProduct,
    Operation,
    PaiNNMessage,
    SO2Message,
    SymmetricContraction,
)
from equivbench.records.peaks import peak_of
from equivbench.records.schema import NotMeasured

pytestmark = [pytest.mark.cuda]
DTYPES = (torch.float32, torch.float64)
FUSED = ("fused", "cuequivariance", "openequivariance")
"""Those whose kernels are a GPU's own."""
NAMES = (*FUSED, *(spec.name for spec in BACKENDS if spec.name not in FUSED))
SLOW = "SteerableConvolution"
"""Whose reference works its patterns out for half a minute on a CPU."""
KINDS: dict[str, Operation] = {}
for _case in CASES:
    KINDS.setdefault(type(_case.operation).__name__, _case.operation)
FUSED_OPERATIONS = [
    KINDS["Convolution"],
    Convolution((8,), 3, 3, parity=False),
    Convolution((70, 3), 1, 1),
    KINDS["PaiNNMessage"],
    PaiNNMessage(70, vectors=False),
    KINDS["SymmetricContraction"],
    SymmetricContraction(40, 2, 1),
    KINDS["EdgeProduct"],
    EdgeProduct(40, 2),
    KINDS["SO2Message"],
    SO2Message(40, 8, 2, 1, 2),
    KINDS["SO2Convolution"],
]


def held_to_the_reference(name: str, operation: Operation, dtype: torch.dtype) -> None:
    """Raises where output, gradients or second gradients are wrong; skips what is not there."""
    reason = why_absent(name, DEVICE)
    if reason is not None:
        pytest.skip(reason)
    try:
        kernel = backend(name).build(operation, dtype=dtype, device=DEVICE)
    except UnsupportedError as error:
        pytest.skip(str(error))
    check_first_use(kernel, operation, name, torch.empty(0, dtype=dtype, device=DEVICE))


@needs_device
def test_the_device_is_the_one_that_was_asked_for() -> None:
    assert torch.empty(0, device=DEVICE).is_cuda == IS_GPU


@needs_device
@pytest.mark.parametrize("operation", FUSED_OPERATIONS, ids=str)
@pytest.mark.parametrize("name", FUSED)
def test_fused_operations_are_the_reference(name: str, operation: Operation) -> None:
    held_to_the_reference(name, operation, torch.float32)


@needs_gpu
@pytest.mark.parametrize("name", ["torch", *FUSED])
def test_a_graphs_replay_is_right_and_no_slower(name: str) -> None:
    operation = Convolution((8, 8, 8), 2, 2)
    if (reason := why_absent(name, DEVICE)) is not None:
        pytest.skip(reason)
    case = Case("convolution", operation, {"nodes": 100, "edges": 1000}, 2, "a small one")
    prepared = prepare(case, "forward", name, device=DEVICE)
    eager = prepared.round(0.1)
    replayed = prepared.replayed(2, 0.1)
    if isinstance(replayed, NotMeasured):
        pytest.skip(replayed.reason)
    assert min(replayed) < 1.2 * eager


@needs_gpu
def test_ceilings_are_what_the_devices_memory_and_arithmetic_give() -> None:
    found = measure_ceilings(DEVICE, torch.float32)
    peak = peak_of(torch.cuda.get_device_name(DEVICE), "", 1)
    if peak is None:
        pytest.skip("the peak of this device is not known here")
    for bandwidth in (found.copy, found.reading.rates[-1], found.writing.rates[-1]):
        assert 0.5 * peak.bandwidth < bandwidth < 1.1 * peak.bandwidth
    assert found.tf32 is False
    assert found.operations < peak.operations["32"]


@needs_device
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != SLOW])
@pytest.mark.parametrize("name", NAMES)
def test_every_backend_is_the_reference(name: str, kind: str, dtype: torch.dtype) -> None:
    held_to_the_reference(name, KINDS[kind], dtype)


@needs_device
@pytest.mark.parametrize("name", NAMES)
def test_steerable_voxels_are_the_reference(name: str) -> None:
    held_to_the_reference(name, KINDS[SLOW], torch.float32)
