"""Operations and the backends of plain code with all tensors on torch's ``meta`` device, which
refuses, as a GPU does, a constant that was left on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from equivbench.kernels.backend import Kernel, TableBackend, backend
from equivbench.kernels.first_use import SIZES
from equivbench.kernels.operations import CASES, Case, EdgeProduct, NeighbourSearch, Operation
from equivbench.kernels.problem import make_inputs

META = torch.device("meta")
CPU = torch.device("cpu")
KINDS: dict[str, Operation] = {}
for _case in CASES:
    # How many neighbours there are, and how many atoms have edges, are no matters of shapes.
    if not isinstance(_case.operation, NeighbourSearch | EdgeProduct):
        KINDS.setdefault(type(_case.operation).__name__, _case.operation)


def inputs_of(operation: Operation, device: torch.device) -> dict[str, torch.Tensor]:
    case = Case(operation.name, operation, SIZES, 0, "a test")
    drawn = make_inputs(case, dtype=torch.float32, device=CPU)
    return {name: each.to(device) for name, each in drawn.items()}


def table_of(name: str) -> Any:
    table = backend(name)
    assert isinstance(table, TableBackend)
    return dict(table.kernels)


DONE = [
    (name, kind)
    for name in ("torch", "e3nn")
    for kind, operation in KINDS.items()
    if type(operation) in table_of(name)
]
QUICK = [kind for kind in KINDS if kind != "SteerableConvolution"]
"""Whose reference does not work its patterns out for half a minute."""


def kernel_of(name: str, operation: Operation, device: torch.device) -> Kernel:
    make = table_of(name)[type(operation)]
    built: Kernel = make(operation, torch.empty(0, device=device))
    return built


@pytest.mark.parametrize(("name", "kind"), DONE)
def test_no_backend_leaves_a_constant_on_the_cpu(name: str, kind: str) -> None:
    operation = KINDS[kind]
    wanted = kernel_of(name, operation, CPU)(**inputs_of(operation, CPU))
    given = inputs_of(operation, META)
    watched = [each.requires_grad_() for each in given.values() if each.is_floating_point()]
    found = kernel_of(name, operation, META)(**given)
    assert (found.device, found.shape, found.dtype) == (META, wanted.shape, wanted.dtype)
    reached = torch.autograd.grad(found.sum(), watched, allow_unused=True)
    assert all(each is None or each.device == META for each in reached)
    assert any(each is not None for each in reached)


@pytest.mark.parametrize("kind", QUICK)
def test_no_reference_leaves_a_constant_on_the_cpu(kind: str) -> None:
    operation: Any = KINDS[kind]
    given = {
        name: each.double() if each.is_floating_point() else each
        for name, each in inputs_of(operation, META).items()
    }
    assert operation.reference(**given).device == META
