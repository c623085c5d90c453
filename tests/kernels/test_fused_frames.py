"""Our SO(2) convolutions on a CPU: the values and derivatives of the reference, on every kind of
input, under every transform."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from compiled_rules import (
    assert_leaves_inputs,
    assert_no_third_derivative,
    assert_nodes_are_checked,
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
from equivbench.kernels.fused import native, native_frames
from equivbench.kernels.fused.frames_operator import BACK, INTO
from equivbench.kernels.fused.frames_source import rows_of
from equivbench.kernels.fused.native import no_compiler
from equivbench.kernels.operations import Case, Operation, SO2Convolution, SO2Message
from equivbench.kernels.operations.edge_frames import FrameTurn, frame_elements
from equivbench.kernels.problem import make_inputs

pytestmark = pytest.mark.skipif(no_compiler() is not None, reason=str(no_compiler()))

CPU = torch.device("cpu")
# Channels that fill vectors and leave some over, that are fewer than a vector holds, and that fill
# them without a rest, with elements of Wigner matrices that are not used.
UNEVEN, FEW, SOME = (
    SO2Message(17, 3, 2, 2, 2),
    SO2Message(3, 2, 2, 2, 1),
    SO2Message(16, 2, 3, 1, 2),
)
SCALARS = SO2Message(1, 2, 0, 0, 0)
OPERATIONS = (UNEVEN, FEW, SOME, SCALARS)
of_each = pytest.mark.parametrize("operation", OPERATIONS, ids=str)
ROUNDING = 1e-12
"""Relative, in float64: sums of some hundred products in another order, through two maps."""


@pytest.fixture(autouse=True)
def few_edges_a_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with two_threads(monkeypatch, native, "EDGES_A_THREAD"):
        yield


def ours(operation: Operation, dtype: torch.dtype = torch.float64) -> Kernel:
    return backend("fused").build(operation, dtype=dtype, device=CPU)


@of_each
def test_values_and_derivatives_are_the_references(operation: SO2Message) -> None:
    inputs = edge_inputs(operation)
    assert_close(
        derivatives(ours(operation), inputs), derivatives(operation.reference, inputs), ROUNDING
    )


@pytest.mark.parametrize("operation", [SO2Convolution(17, 5, 2, 1), SO2Convolution(2, 3, 1, 1)])
def test_with_wigner_matrices_it_is_escns_convolution(operation: SO2Convolution) -> None:
    case = Case("test", operation, {"nodes": 6, "edges": 24}, 2, "")
    drawn = make_inputs(case, dtype=torch.float64, device=CPU)
    inputs = {
        name: one.requires_grad_(name in operation.differentiable) for name, one in drawn.items()
    }
    assert_close(
        derivatives(ours(operation), inputs), derivatives(operation.reference, inputs), ROUNDING
    )


@of_each
@pytest.mark.parametrize("places", [*((n,) for n in range(6)), (0, 1), (2, 5), (3, 4)], ids=str)
def test_each_set_of_inputs_that_need_gradients(
    operation: SO2Message, places: tuple[int, ...]
) -> None:
    by = [operation.differentiable[place] for place in places]
    inputs = needing(edge_inputs(operation), by)
    assert_close(
        derivatives(ours(operation), inputs), derivatives(operation.reference, inputs), ROUNDING
    )


@of_each
@pytest.mark.parametrize(("nodes", "edges"), [(3, 0), (1, 4), (1, 1), (6, 9)])
def test_sizes_at_the_edge(operation: SO2Message, nodes: int, edges: int) -> None:
    inputs = edge_inputs(operation, nodes, edges)
    assert_close(
        derivatives(ours(operation), inputs), derivatives(operation.reference, inputs), ROUNDING
    )


@of_each
def test_inputs_need_not_be_contiguous(operation: SO2Message) -> None:
    inputs = edge_inputs(operation)
    apart = strided(inputs)
    assert not any(apart[name].is_contiguous() for name in ("x", "frames", "first"))
    # Products with weights that lie apart may sum in another order.
    assert_close(derivatives(ours(operation), apart), derivatives(ours(operation), inputs), 1e-14)


def test_float32_rounds_and_no_more() -> None:
    inputs = edge_inputs(UNEVEN, dtype=torch.float32)
    found = [one.double() for one in derivatives(ours(UNEVEN, torch.float32), inputs)]
    # Sums of tens to hundreds of products rounded to 6e-8 each, through two maps and a gate.
    assert_close(found, derivatives(ours(UNEVEN), in_double(inputs)), 1e-5)


@of_each
def test_the_same_bits_at_the_same_threads_and_close_at_others(operation: SO2Message) -> None:
    assert_same_bits(ours(operation), edge_inputs(operation, nodes=30, edges=200), ROUNDING)


@of_each
def test_inputs_are_left_as_they_are(operation: SO2Message) -> None:
    assert_leaves_inputs(ours(operation), edge_inputs(operation))


@of_each
def test_a_wrong_node_is_an_error_not_a_crash(operation: SO2Message) -> None:
    assert_nodes_are_checked(ours(operation), edge_inputs(operation))


@of_each
def test_a_third_derivative_is_an_error_not_nothing(operation: SO2Message) -> None:
    assert_no_third_derivative(ours(operation), edge_inputs(operation))


NUMBERS = {INTO: [3, 2, 2, 2, 2, 1], BACK: [3, 1, 2, 2, 1, 1]}
"""What the private operators are told: channels, ends, lmax and mmax of the matrices, degree and
order of what is turned."""
OPERATORS = {INTO: "fused_into_frames", BACK: "fused_turn_back"}
INPUTS = {INTO: ("frames", "weights", "x"), BACK: ("rows", "frames", "scales", "z")}
TENSORS = [
    (name, tensor)
    for name, inputs in INPUTS.items()
    for tensor in ("grad", *(f"by_{one}" for one in inputs), *inputs, "edge_index")
    # These have no columns that could be too few.
    if not tensor.endswith("rows")
]


def zeros(name: str, tensor: str) -> Tensor:
    """What the private operator takes, for 6 nodes and 25 edges."""
    turn = FrameTurn(*NUMBERS[name])
    of_edges, of_nodes = (25, turn.edge_size), (6, turn.node_size)
    shapes: dict[str, tuple[int, int]] = {
        "grad": of_edges if name == INTO else of_nodes,
        "frames": (25, turn.frame_size),
        "weights": (25, turn.weight_size),
        "x": of_nodes,
        "rows": (6, 0),
        "scales": (25, 1),
        "z": of_edges,
        "edge_index": (2, 25),
    }
    one = torch.zeros(shapes[tensor.removeprefix("by_")], dtype=torch.float64)
    return one.long() if tensor == "edge_index" else one


def private_call(operator: str, **changes: Any) -> Any:
    """A call of the private operator for second derivatives, with ``changes``."""
    inputs = INPUTS[operator]
    tensors = ("grad", *(f"by_{one}" for one in inputs), *inputs, "edge_index")
    arguments: dict[str, Any] = {
        "needs": [True] * (1 + len(inputs)),
        **{tensor: zeros(operator, tensor) for tensor in tensors},
        "name": operator,
        "numbers": NUMBERS[operator],
    }
    return getattr(torch.ops.equivbench, OPERATORS[operator])(*(arguments | changes).values())


@pytest.mark.parametrize(("name", "tensor"), TENSORS)
@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_the_private_operators_read_no_memory_that_is_not_there(
    name: str, tensor: str, spoil: Callable[[Tensor], Tensor]
) -> None:
    assert len(private_call(name)) == 1 + len(INPUTS[name])
    with pytest.raises((ValueError, NotImplementedError)):
        private_call(name, **{tensor: spoil(zeros(name, tensor))})


def test_the_way_back_has_no_rows_that_its_gradient_lacks() -> None:
    for rows in (zeros(BACK, "rows")[1:], torch.zeros(6, 1, dtype=torch.float64)):
        with pytest.raises(ValueError, match=f"{BACK} is"):
            private_call(BACK, rows=rows)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "changes",
    [
        # Too few numbers, no channels, degrees or orders that the matrices lack, another end.
        *({"numbers": wrong} for wrong in ([], [3, 1, 2, 2, 1], [0, 1, 2, 2, 1, 1])),
        *({"numbers": wrong} for wrong in ([3, 1, 2, 2, 3, 1], [3, 1, 2, 1, 2, 2])),
        *({"numbers": wrong} for wrong in ([3, 1, 2, 2, 1, 2], [3, 3, 2, 2, 1, 1])),
        {"name": "convolution"},
        {"needs": []},
        {"needs": [True] * 3},
        {"grad": None},
    ],
    ids=str,
)
def test_the_private_operators_refuse_what_they_have_no_kernel_for(
    name: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=changes.get("name", name)):
        private_call(name, **changes)


def test_without_tangents_the_output_is_not_asked_for_beside_its_gradient() -> None:
    for name, inputs in INPUTS.items():
        with pytest.raises(ValueError, match=name):
            private_call(name, **{f"by_{one}": None for one in inputs})


def test_rows_of_a_degree_lie_where_the_elements_do() -> None:
    turn = FrameTurn(4, 1, 3, 2, 2, 1)
    elements = frame_elements(turn.lmax, turn.mmax)
    found = [row for degree in range(turn.degree + 1) for row in rows_of(turn, degree)]
    assert sorted(row.row for row in found) == list(range(len(turn.rows)))
    for one in found:
        l, m = turn.rows[one.row]
        row, first = elements[one.element]
        assert first == l**2
        assert elements[one.element + 2 * l] == (row, l**2 + 2 * l)
        # Rows of weights: degrees 0, 1, 2 of m = 0, then 1 and 2 of m = 1.
        assert one.kind == (l if m == 0 else 3 + l - 1)


WRONG = {
    "output": ("along ? u_w * t + w * u_t : w * t;", "along ? u_w * t + w * u_t : t;"),
    "gradient": ("s += along ? u_a * t + a * u_t : a * t;", "s += along ? u_a * t + a * u_t : t;"),
    "second": ("u_q = w * u_a + u_w * a;", "u_q = w * u_a;"),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_library_that_computes_something_else_is_not_used(
    change: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = SO2Message(2, 1, 1, 1, 1)
    assert_refused_while_wrong(
        lambda: ours(operation),
        (native_frames, "frames_source", native_frames.compiled_turn),
        change,
        rf"is wrong on '{operation.name}'",
        monkeypatch,
    )
