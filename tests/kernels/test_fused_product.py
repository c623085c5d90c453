"""Our edge product on a CPU: the values and derivatives of the reference, on every kind of input,
under every transform."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from compiled_rules import (
    assert_leaves_inputs,
    assert_no_third_derivative,
    assert_same_bits,
    in_double,
    needing,
    strided,
    two_threads,
)
from derivatives import (
    SPOILT,
    assert_close,
    assert_refused_while_wrong,
    derivatives,
    edge_inputs,
)
from torch import Tensor

from equivbench.kernels.backend import Kernel, backend
from equivbench.kernels.fused import native, native_product
from equivbench.kernels.fused.native import no_compiler
from equivbench.kernels.fused.product_operator import edge_product
from equivbench.kernels.fused.product_source import product_table
from equivbench.kernels.operations import EdgeProduct
from equivbench.kernels.operations.paths import coupling

pytestmark = pytest.mark.skipif(no_compiler() is not None, reason=str(no_compiler()))

CPU = torch.device("cpu")
# Channels that fill vectors and leave some over, and fewer than a vector holds.
UNEVEN, FEW, SCALARS = EdgeProduct(17, 2), EdgeProduct(3, 1), EdgeProduct(1, 0)
OPERATIONS = (UNEVEN, FEW, SCALARS)
of_each = pytest.mark.parametrize("operation", OPERATIONS, ids=str)
ROUNDING = 1e-13
"""Relative, in float64: sums of some hundred products in another order."""


@pytest.fixture(autouse=True)
def few_edges_a_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with two_threads(monkeypatch, native, "EDGES_A_THREAD"):
        yield


def ours(operation: EdgeProduct, dtype: torch.dtype = torch.float64) -> Kernel:
    return backend("fused").build(operation, dtype=dtype, device=CPU)


@pytest.mark.parametrize("operation", [*OPERATIONS, EdgeProduct(16, 1)], ids=str)
def test_values_and_derivatives_are_the_references(operation: EdgeProduct) -> None:
    inputs = edge_inputs(operation)
    assert_close(
        derivatives(ours(operation), inputs), derivatives(operation.reference, inputs), ROUNDING
    )


@of_each
@pytest.mark.parametrize("places", [(0,), (1,), (2,), (3,), (0, 2), (1, 3)], ids=str)
def test_each_set_of_inputs_that_need_gradients(
    operation: EdgeProduct, places: tuple[int, ...]
) -> None:
    by = [operation.differentiable[place] for place in places]
    inputs = needing(edge_inputs(operation), by)
    assert_close(
        derivatives(ours(operation), inputs), derivatives(operation.reference, inputs), ROUNDING
    )


@of_each
@pytest.mark.parametrize(("nodes", "edges"), [(3, 0), (1, 4), (1, 1), (6, 9)])
def test_sizes_at_the_edge(operation: EdgeProduct, nodes: int, edges: int) -> None:
    inputs = edge_inputs(operation, nodes, edges)
    assert_close(
        derivatives(ours(operation), inputs), derivatives(operation.reference, inputs), ROUNDING
    )


@of_each
def test_what_centres_are_called_does_not_matter(operation: EdgeProduct) -> None:
    inputs = edge_inputs(operation)
    far = {**inputs, "edge_index": inputs["edge_index"] * 2**40 + 7}
    # In the order of their numbers, so that sums have the same order too.
    assert_close(derivatives(ours(operation), far), derivatives(ours(operation), inputs), 0)
    with pytest.raises(IndexError, match="below 0"):
        ours(operation)(**{**inputs, "edge_index": inputs["edge_index"] - 1})


@of_each
def test_inputs_need_not_be_contiguous(operation: EdgeProduct) -> None:
    inputs = edge_inputs(operation)
    apart = strided(inputs)
    assert not any(apart[name].is_contiguous() for name in ("x", "harmonics", "edge_index"))
    assert_close(derivatives(ours(operation), apart), derivatives(ours(operation), inputs), 0)


def test_float32_rounds_and_no_more() -> None:
    inputs = edge_inputs(UNEVEN, dtype=torch.float32)
    found = [one.double() for one in derivatives(ours(UNEVEN, torch.float32), inputs)]
    # Sums of tens to hundreds of products rounded to 6e-8 each; cotangents are rounded to float32
    # too.
    assert_close(found, derivatives(ours(UNEVEN), in_double(inputs)), 2e-6)


@of_each
def test_the_same_bits_at_the_same_threads_and_close_at_others(operation: EdgeProduct) -> None:
    assert_same_bits(ours(operation), edge_inputs(operation, nodes=30, edges=200), ROUNDING)


@of_each
def test_inputs_are_left_as_they_are(operation: EdgeProduct) -> None:
    assert_leaves_inputs(ours(operation), edge_inputs(operation))


@of_each
def test_a_third_derivative_is_an_error_not_nothing(operation: EdgeProduct) -> None:
    assert_no_third_derivative(ours(operation), edge_inputs(operation))


TENSORS = (
    *("grad", "by_x", "by_harmonics", "by_environment", "by_weights"),
    *("x", "harmonics", "environment", "weights", "edge_index"),
)


def private_call(operation: EdgeProduct, **changes: Any) -> Any:
    """A call of the private operator for second derivatives, with ``changes``."""
    inputs = {name: one.detach() for name, one in edge_inputs(operation).items()}
    arguments: dict[str, Any] = {
        "needs": [True] * 5,
        "grad": torch.zeros_like(inputs["x"]),
        **{f"by_{name}": inputs[name] for name in operation.differentiable},
        **inputs,
        "name": operation.name,
        "numbers": [operation.channels, operation.lmax],
    }
    for name, change in changes.items():
        arguments[name] = change(arguments[name]) if callable(change) else change
    return torch.ops.equivbench.fused_edge_product(*arguments.values())


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_the_private_operator_reads_no_memory_that_is_not_there(
    name: str, spoil: Callable[[Tensor], Tensor]
) -> None:
    assert len(private_call(FEW)) == 5
    with pytest.raises((ValueError, NotImplementedError)):
        private_call(FEW, **{name: spoil})


@pytest.mark.parametrize(
    "changes",
    [
        *({"numbers": wrong} for wrong in ([], [3], [0, 1], [3, -1], [3, 1, 1])),
        {"name": "convolution"},
        {"needs": []},
        {"needs": [True] * 4},
        {"grad": None},
        dict.fromkeys(TENSORS[1:5]),
    ],
    ids=str,
)
def test_the_private_operator_refuses_what_it_has_no_kernel_for(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=changes.get("name", FEW.name)):
        private_call(FEW, **changes)


def test_slots_rebuild_the_wigner_coefficients() -> None:
    table = product_table(UNEVEN)
    assert len(set(table.slots)) == len(table.slots)
    rows = 9
    found = torch.zeros(len(UNEVEN.paths), rows, rows, rows, dtype=torch.float64)
    for target, source, slot in table.entries:
        for path, row, value in table.slots[slot]:
            found[path, target, source, row] += value
    wanted = torch.zeros_like(found)
    for number, one in enumerate(UNEVEN.paths):
        blocks = [slice(l**2, (l + 1) ** 2) for l in (one.target, one.source, one.edge)]
        wanted[number, blocks[0], blocks[1], blocks[2]] = coupling(one)
    # Entries that agree to the rounding of the table share a slot.
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-12)


@pytest.mark.slow
def test_a_compiled_energy_and_its_gradient_give_the_same_second_derivatives() -> None:
    inputs = edge_inputs(FEW)
    weights = inputs["weights"]

    def energy(x: Tensor, harmonics: Tensor, environment: Tensor, edge_index: Tensor) -> Tensor:
        out = edge_product(FEW, x, harmonics, environment, weights, edge_index)
        return out.square().sum()

    def of_a_loss(energy_and_gradient: Any) -> list[Tensor]:
        batch = [inputs[name].detach() for name in ("x", "harmonics", "environment", "edge_index")]
        gradient, value = energy_and_gradient(*batch)
        (by_weights,) = torch.autograd.grad(value + gradient.square().sum(), weights)
        return [value.detach(), gradient.detach(), by_weights]

    both = torch.func.grad_and_value(energy)
    # Up to the C++, of which torch is asked in test_fused_operations.py.
    compiled = torch.compile(both, backend="aot_eager", fullgraph=True, dynamic=True)
    assert_close(of_a_loss(compiled), of_a_loss(both), ROUNDING)


WRONG = {
    "output": ("if (kind == 0) forward(m, x, out);", "memset(out, 0, sizeof out);"),
    "gradient": ("if (kind == 1) unravel(", "if (false) unravel("),
    "second": ("if (kind == 2) couple_along(", "memset(n, 0, sizeof n); if (false) couple_along("),
}


@pytest.mark.parametrize(("result", "change"), WRONG.items(), ids=WRONG)
def test_a_library_that_computes_something_else_is_not_used(
    result: str, change: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = EdgeProduct(2, 1)
    assert_refused_while_wrong(
        lambda: ours(operation),
        (native_product, "product_source", native_product.compiled_product),
        change,
        rf"is wrong on '{operation.name}'.*: {result}",
        monkeypatch,
    )
