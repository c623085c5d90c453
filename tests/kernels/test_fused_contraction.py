"""Our symmetric contraction on a CPU: the values and derivatives of the reference, on every kind of
input, under every transform."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from compiled_rules import (
    assert_leaves_inputs,
    assert_no_third_derivative,
    in_double,
    needing,
    strided,
    two_threads,
)
from derivatives import SPOILT, Inputs, assert_close, assert_refused_while_wrong, derivatives
from torch import Tensor

from equivbench.kernels.backend import Kernel, UnsupportedError, backend
from equivbench.kernels.fused import native_contraction
from equivbench.kernels.fused.contraction_operator import contracted
from equivbench.kernels.fused.native import no_compiler
from equivbench.kernels.operations import SymmetricContraction

pytestmark = pytest.mark.skipif(no_compiler() is not None, reason=str(no_compiler()))

CPU = torch.device("cpu")
# Channels that fill vectors and leave some over, and fewer than a vector holds; all degrees of a
# polynomial.
UNEVEN = SymmetricContraction(17, 2, 1)
FEW = SymmetricContraction(3, 1, 2)
PAIRS = SymmetricContraction(1, 2, 0, 2)
OPERATIONS = (UNEVEN, FEW, PAIRS)
of_each = pytest.mark.parametrize("operation", OPERATIONS, ids=str)
ROUNDING = 1e-13
"""Relative, in float64: sums of some hundred products in another order."""


@pytest.fixture(autouse=True)
def few_features_a_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two threads take part even for the few nodes of a test."""
    with two_threads(monkeypatch, native_contraction, "FEATURES_A_THREAD"):
        yield


def make(
    operation: SymmetricContraction,
    nodes: int = 7,
    elements: int = 3,
    dtype: torch.dtype = torch.float64,
) -> Inputs:
    """Random inputs; where there are several elements, no node is of the last one."""
    generator = torch.Generator().manual_seed(nodes + elements)

    def normal(*shape: int) -> Tensor:
        drawn = torch.randn(shape, dtype=torch.float64, generator=generator)
        return drawn.to(dtype).requires_grad_()

    stated = operation.arguments({"nodes": nodes, "elements": elements})
    numbers = {name: normal(*one.shape) for name, one in stated.items() if not one.index}
    kinds = torch.randint(0, max(1, elements - 1), (nodes,), generator=generator)
    return {**numbers, "elements": kinds}


def ours(operation: SymmetricContraction, dtype: torch.dtype = torch.float64) -> Kernel:
    return backend("fused").build(operation, dtype=dtype, device=CPU)


@pytest.mark.parametrize(
    "operation",
    [*OPERATIONS, SymmetricContraction(16, 1, 0, 1), SymmetricContraction(31, 1, 1)],
    ids=str,
)
def test_values_and_derivatives_are_the_references(operation: SymmetricContraction) -> None:
    inputs = make(operation)
    assert_close(
        derivatives(ours(operation), inputs), derivatives(operation.reference, inputs), ROUNDING
    )


@of_each
@pytest.mark.parametrize("by", ["x", "weights"])
def test_each_input_may_be_the_one_that_needs_gradients(
    operation: SymmetricContraction, by: str
) -> None:
    inputs = needing(make(operation), [by])
    assert_close(
        derivatives(ours(operation), inputs), derivatives(operation.reference, inputs), ROUNDING
    )


@of_each
@pytest.mark.parametrize(("nodes", "elements"), [(0, 2), (1, 1), (1, 4), (9, 1), (24, 2)])
def test_sizes_at_the_edge(operation: SymmetricContraction, nodes: int, elements: int) -> None:
    inputs = make(operation, nodes, elements)
    # Freed memory that is not zero: a row that the kernel forgets to write would show.
    torch.full((elements, operation.weight_size), 7.0, dtype=torch.float64)
    assert_close(
        derivatives(ours(operation), inputs), derivatives(operation.reference, inputs), ROUNDING
    )


@of_each
def test_inputs_need_not_be_contiguous(operation: SymmetricContraction) -> None:
    inputs = make(operation)
    apart = strided(inputs, dim=0)
    assert not any(one.is_contiguous() for one in apart.values())
    assert_close(derivatives(ours(operation), apart), derivatives(ours(operation), inputs), 0)


def test_float32_rounds_and_no_more() -> None:
    inputs = make(UNEVEN, dtype=torch.float32)
    kernel = ours(UNEVEN, torch.float32)
    found = [one.double() for one in derivatives(kernel, inputs)]
    # Sums of tens to hundreds of products rounded to 6e-8 each; cotangents are rounded to float32
    # too.
    assert_close(found, derivatives(ours(UNEVEN), in_double(inputs)), 2e-6)


def test_under_autocast_it_is_computed_in_float32() -> None:
    inputs = make(FEW, dtype=torch.float32)
    narrow = {**inputs, "x": inputs["x"].detach().bfloat16().requires_grad_()}
    kernel = ours(FEW, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = kernel(**narrow)
        gradients = torch.autograd.grad(output.sum(), [narrow["x"], narrow["weights"]])
    assert [one.dtype for one in gradients] == [torch.bfloat16, torch.float32]
    assert torch.equal(output, kernel(**{**narrow, "x": narrow["x"].detach().float()}))


@of_each
def test_the_same_bits_at_any_number_of_threads(operation: SymmetricContraction) -> None:
    inputs = make(operation, nodes=40, elements=5)
    once = derivatives(ours(operation), inputs)
    for threads in (2, 1, 3):
        torch.set_num_threads(threads)
        again = derivatives(ours(operation), inputs)
        assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))


@of_each
def test_inputs_are_left_as_they_are(operation: SymmetricContraction) -> None:
    assert_leaves_inputs(ours(operation), make(operation))


@of_each
def test_a_third_derivative_is_an_error_not_nothing(operation: SymmetricContraction) -> None:
    assert_no_third_derivative(ours(operation), make(operation))


@of_each
def test_second_derivatives_in_forward_mode_are_those_in_reverse(
    operation: SymmetricContraction,
) -> None:
    inputs = make(operation)
    x, weights, elements = (inputs[name].detach() for name in ("x", "weights", "elements"))
    generator = torch.Generator().manual_seed(1)
    directions = [
        tuple(
            torch.randn(one.shape, dtype=torch.float64, generator=generator) for one in (x, weights)
        )
        for _ in range(2)
    ]

    def twice_along(function: Callable[..., Tensor], first: Any, second: Any) -> Tensor:
        def along(*values: Tensor) -> Tensor:
            return torch.func.jvp(lambda *own: function(*own, elements), values, first)[1]

        return torch.func.jvp(along, (x, weights), second)[1]

    def kernel(*given: Tensor) -> Tensor:
        return contracted(operation, *given)

    wanted = twice_along(operation.reference, *directions)
    assert_close([twice_along(kernel, *directions)], [wanted], ROUNDING)
    # By one input alone, and by a direction that is tiny or huge beside it, in which no digits may
    # be lost.
    zeros = tuple(torch.zeros_like(one) for one in (x, weights))
    for size in (1e-9, 1.0, 1e9):
        first, second = ((one[0] * size, zeros[1]) for one in directions)
        wanted = twice_along(operation.reference, first, second)
        assert_close([twice_along(kernel, first, second)], [wanted], ROUNDING)
    assert not twice_along(kernel, zeros, zeros).any()


@of_each
def test_a_wrong_element_is_an_error_not_a_crash(operation: SymmetricContraction) -> None:
    inputs = make(operation)
    for wrong in (-1, 3, 2**40):
        elements = inputs["elements"].clone()
        elements[2] = wrong
        with pytest.raises(IndexError, match="not among the 3"):
            ours(operation)(**{**inputs, "elements": elements})


TENSORS = ("grad", "by_x", "by_weights", "x", "weights", "elements")


def private_call(operation: SymmetricContraction, **changes: Any) -> Any:
    """A call of the private operator for second derivatives, with ``changes``."""
    inputs = {name: one.detach() for name, one in make(operation).items()}
    arguments: dict[str, Any] = {
        "needs": [True] * 3,
        "grad": torch.zeros(7, operation.target_size, dtype=torch.float64),
        "by_x": inputs["x"],
        "by_weights": inputs["weights"],
        **inputs,
        "name": operation.name,
        "numbers": [
            *(operation.channels, operation.lmax),
            *(operation.target_lmax, operation.correlation),
        ],
    }
    for name, change in changes.items():
        arguments[name] = change(arguments[name]) if callable(change) else change
    return torch.ops.equivbench.fused_contraction(*arguments.values())


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_the_private_operator_reads_no_memory_that_is_not_there(
    name: str, spoil: Callable[[Tensor], Tensor]
) -> None:
    if name == "elements" and spoil in (SPOILT["a column less"], SPOILT["one dimension"]):
        pytest.skip("it has no columns, and is of one dimension")
    assert len(private_call(FEW)) == 3
    # Of weights with fewer rows than there are elements, a row is not there.
    with pytest.raises((ValueError, NotImplementedError, IndexError)):
        private_call(FEW, **{name: spoil})


@pytest.mark.parametrize(
    "changes",
    [
        *({"numbers": wrong} for wrong in ([], [3, 1, 2], [0, 1, 2, 3], [3, -1, 0, 3])),
        *({"numbers": wrong} for wrong in ([3, 1, 2, 0], [3, 1, 2, 4], [3, 1, -1, 3])),
        {"name": "convolution"},
        {"needs": []},
        {"needs": [True] * 4},
        {"grad": None},
        {"by_x": None, "by_weights": None},
    ],
    ids=str,
)
def test_the_private_operator_refuses_what_it_has_no_kernel_for(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=changes.get("name", FEW.name)):
        private_call(FEW, **changes)


@pytest.mark.slow
def test_a_compiled_energy_and_its_gradient_give_the_same_second_derivatives() -> None:
    scale = torch.nn.Parameter(torch.linspace(0.5, 1.5, 2 * FEW.weight_size, dtype=torch.float64))

    def energy(x: Tensor, elements: Tensor) -> Tensor:
        return contracted(FEW, x, scale.view(2, -1), elements).square().sum()

    def of_a_loss(energy_and_gradient: Any, *batch: Tensor) -> list[Tensor]:
        gradient, value = energy_and_gradient(*batch)
        (by_scale,) = torch.autograd.grad(value + gradient.square().sum(), scale)
        return [value.detach(), gradient.detach(), by_scale]

    both = torch.func.grad_and_value(energy)
    # Up to the C++, of which torch is asked in test_fused_operations.py.
    compiled = torch.compile(both, backend="aot_eager", fullgraph=True, dynamic=True)
    for nodes in (5, 8):
        inputs = make(FEW, nodes, 2)
        batch = inputs["x"].detach(), inputs["elements"]
        assert_close(of_a_loss(compiled, *batch), of_a_loss(both, *batch), ROUNDING)


WRONG = {
    "output": ("if (kind == 0) forward(nodes, x, c, out);", ""),
    "gradient": ("if (kind == 1) first(nodes, x, c, g, by_x, by_c);", ""),
    "second": ("read(a.u_w ? a.u_w + weights : 0,", "read(0,"),
}


@pytest.mark.parametrize(("result", "change"), WRONG.items(), ids=WRONG)
def test_a_library_that_computes_something_else_is_not_used(
    result: str, change: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = SymmetricContraction(1, 1, 1)
    assert_refused_while_wrong(
        lambda: ours(operation),
        (native_contraction, "contraction_source", native_contraction.compiled_contraction),
        change,
        rf"is wrong on '{operation.name}'.*: {result}",
        monkeypatch,
    )


def test_the_backend_says_what_it_does_not_do() -> None:
    with pytest.raises(UnsupportedError, match="up to 3 factors, not of 4"):
        ours(SymmetricContraction(2, 1, 1, 4))
