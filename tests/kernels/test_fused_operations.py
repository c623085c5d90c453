"""Our operations along edges on a CPU: the values and derivatives of the reference, on every kind
of input, under every transform."""

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
    two_threads,
)
from derivatives import SPOILT, assert_close, derivatives, edge_inputs
from torch import Tensor

from equivbench.errors import FailedError
from equivbench.kernels.backend import Kernel, UnsupportedError, backend
from equivbench.kernels.fused import native
from equivbench.kernels.fused.coupling import EdgeOperation
from equivbench.kernels.fused.edge_operator import along_edges
from equivbench.kernels.fused.native import no_compiler
from equivbench.kernels.operations import Convolution, PaiNNMessage, SphericalHarmonics

pytestmark = pytest.mark.skipif(no_compiler() is not None, reason=str(no_compiler()))

# Channels that fill vectors, that leave some over, and that are fewer than a vector holds; paths of
# both parities.
UNEVEN = Convolution((17, 5, 1), 2, 2)
CHIRAL = Convolution((3, 2), 1, 1, parity=False)
MESSAGE = PaiNNMessage(17)
FIRST_MESSAGE = PaiNNMessage(3, vectors=False)
OPERATIONS = (UNEVEN, CHIRAL, MESSAGE, FIRST_MESSAGE)
of_each = pytest.mark.parametrize("operation", OPERATIONS, ids=str)
ROUNDING = 1e-13
"""Relative, in float64: sums of some hundred products in another order."""


@pytest.fixture(autouse=True)
def few_edges_a_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with two_threads(monkeypatch, native, "EDGES_A_THREAD"):
        yield


def fused(operation: EdgeOperation) -> Kernel:
    return backend("fused").build(operation, dtype=torch.float64, device=torch.device("cpu"))


@pytest.mark.parametrize(
    "operation", [*OPERATIONS, PaiNNMessage(1), PaiNNMessage(28), PaiNNMessage(32)], ids=str
)
def test_values_and_derivatives_are_the_references(operation: EdgeOperation) -> None:
    inputs = edge_inputs(operation)
    assert_close(
        derivatives(fused(operation), inputs), derivatives(operation.reference, inputs), ROUNDING
    )


@of_each
@pytest.mark.parametrize("places", [(0,), (1,), (2,), (0, 2), (1, 2)], ids=str)
def test_each_set_of_inputs_that_need_gradients(
    operation: EdgeOperation, places: tuple[int, ...]
) -> None:
    by = [operation.differentiable[place] for place in places]
    inputs = needing(edge_inputs(operation), by)
    assert_close(
        derivatives(fused(operation), inputs), derivatives(operation.reference, inputs), ROUNDING
    )


@of_each
@pytest.mark.parametrize(("nodes", "edges"), [(3, 0), (1, 4), (1, 1), (6, 9)])
def test_sizes_at_the_edge(operation: EdgeOperation, nodes: int, edges: int) -> None:
    inputs = edge_inputs(operation, nodes, edges)
    # Freed memory that is not zero: a row that the kernel forgets to write would show.
    torch.full((nodes, operation.target_size), 7.0, dtype=torch.float64)
    assert_close(
        derivatives(fused(operation), inputs), derivatives(operation.reference, inputs), ROUNDING
    )


@of_each
@pytest.mark.parametrize("row", [0, 1], ids=["neighbour", "centre"])
def test_edges_may_come_in_any_order(operation: EdgeOperation, row: int) -> None:
    inputs = edge_inputs(operation)
    order = inputs["edge_index"][row].argsort(stable=True)
    ordered = {
        name: one if name == "x" else one[:, order] if name == "edge_index" else one[order]
        for name, one in inputs.items()
    }
    found, wanted = (
        [output.detach(), *torch.autograd.grad(output.sin().sum(), [one["x"], one["weights"]])]
        for one in (ordered, inputs)
        for output in [fused(operation)(**one)]
    )
    assert_close(found, [*wanted[:2], wanted[2][order]], ROUNDING)


@of_each
def test_inputs_need_not_be_contiguous(operation: EdgeOperation) -> None:
    inputs = edge_inputs(operation)
    strided = {
        name: one.detach().mT.contiguous().mT.requires_grad_(one.requires_grad)
        for name, one in inputs.items()
    }
    assert not strided["weights"].is_contiguous()
    assert_close(derivatives(fused(operation), strided), derivatives(fused(operation), inputs), 0)


# 31 channels: vectors of 16 lanes and of all shorter lengths.
@pytest.mark.parametrize("operation", [UNEVEN, MESSAGE, PaiNNMessage(31)], ids=str)
def test_float32_rounds_and_no_more(operation: EdgeOperation) -> None:
    inputs = edge_inputs(operation, dtype=torch.float32)
    found = [one.double() for one in derivatives(fused(operation), inputs)]
    # Sums of tens to hundreds of products rounded to 6e-8 each; cotangents are rounded to float32
    # too.
    assert_close(found, derivatives(fused(operation), in_double(inputs)), 1e-6)


@pytest.mark.parametrize("operation", [UNEVEN, MESSAGE], ids=str)
def test_under_autocast_it_is_computed_in_float32(operation: EdgeOperation) -> None:
    inputs = edge_inputs(operation, dtype=torch.float32)
    narrow = {
        name: one.detach().bfloat16().requires_grad_() if name in ("x", "weights") else one
        for name, one in inputs.items()
    }
    kernel = fused(operation)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = kernel(**narrow)
        assert output.dtype == torch.float32
        by = [narrow[name] for name in operation.differentiable[:2]]
        gradients = torch.autograd.grad(output.sum(), by)
    assert [one.dtype for one in gradients] == [torch.bfloat16, torch.float32]
    wide = {
        name: one.detach().float() if one.dtype == torch.bfloat16 else one
        for name, one in narrow.items()
    }
    assert torch.equal(output, kernel(**wide))


@of_each
def test_the_same_bits_at_the_same_threads_and_close_at_others(operation: EdgeOperation) -> None:
    assert_same_bits(fused(operation), edge_inputs(operation, nodes=30, edges=200), ROUNDING)


@of_each
def test_a_third_derivative_is_an_error_not_nothing(operation: EdgeOperation) -> None:
    assert_no_third_derivative(fused(operation), edge_inputs(operation))


@of_each
def test_inputs_are_left_as_they_are(operation: EdgeOperation) -> None:
    assert_leaves_inputs(fused(operation), edge_inputs(operation))


@of_each
def test_a_wrong_node_is_an_error_not_a_crash(operation: EdgeOperation) -> None:
    assert_nodes_are_checked(fused(operation), edge_inputs(operation))


@of_each
def test_wrong_shapes_and_types_are_errors(operation: EdgeOperation) -> None:
    inputs = edge_inputs(operation)
    _, of_edges, _ = operation.differentiable
    for name in operation.differentiable:
        with pytest.raises(ValueError, match=f"of the {operation.name} is"):
            fused(operation)(**{**inputs, name: inputs[name][:, 1:]})
        # The rows of x are the nodes: with fewer of them edges lead to nodes that are not there.
        with pytest.raises(IndexError if name == "x" else ValueError, match=r"must be|not among"):
            fused(operation)(**{**inputs, name: inputs[name][:-3]})
    with pytest.raises(ValueError, match=r"must be torch\.int64"):
        fused(operation)(**{**inputs, "edge_index": inputs["edge_index"].int()})
    with pytest.raises(ValueError, match=r"it must be torch\.float64"):
        fused(operation)(**{**inputs, of_edges: inputs[of_edges].float()})
    with pytest.raises(ValueError, match=r"must be torch\.float32 or torch\.float64"):
        halves = {name: one.half() for name, one in inputs.items() if name != "edge_index"}
        fused(operation)(**halves, edge_index=inputs["edge_index"])


GRADIENTS = [False, True, True, True]
NUMBERS: dict[EdgeOperation, list[int]] = {CHIRAL: [3, 2, 1, 1, 0], MESSAGE: [17, 1]}
"""What the private operator is told of an operation beside its name."""


def columns(operation: EdgeOperation) -> dict[str, int]:
    """Of each tensor of the private operator; both operations have four harmonics."""
    inputs = {"x": operation.source_size, "harmonics": 4, "weights": operation.weight_size}
    tangents = {f"by_{name}": count for name, count in inputs.items()}
    return {"grad": operation.target_size, **tangents, **inputs, "edge_index": 25}


def zeros(operation: EdgeOperation, name: str) -> Tensor:
    """What the private operator takes by this name."""
    rows = {"grad": 6, "x": 6, "by_x": 6, "edge_index": 2}.get(name, 25)
    one = torch.zeros(rows, columns(operation)[name], dtype=torch.float64)
    return one.long() if name == "edge_index" else one


def private_call(operation: EdgeOperation, **changes: Any) -> Any:
    """A call of the private operator for second derivatives, with ``changes``."""
    arguments: dict[str, Any] = {
        "needs": GRADIENTS,
        **{name: zeros(operation, name) for name in columns(operation)},
        "name": operation.name,
        "numbers": NUMBERS[operation],
    }
    return torch.ops.equivbench.fused_along_edges(*(arguments | changes).values())


TENSORS = ("grad", "by_x", "by_harmonics", "by_weights", "x", "harmonics", "weights", "edge_index")


@pytest.mark.parametrize("operation", NUMBERS, ids=str)
@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_the_private_operator_reads_no_memory_that_is_not_there(
    operation: EdgeOperation, name: str, spoil: Callable[[Tensor], Tensor]
) -> None:
    right = zeros(operation, name)
    assert len(private_call(operation, **{name: right})) == 4
    with pytest.raises((ValueError, NotImplementedError)):
        private_call(operation, **{name: spoil(right)})


@pytest.mark.parametrize(
    ("operation", "changes"),
    [
        *((CHIRAL, {"numbers": wrong}) for wrong in ([], [1, 1, 0], [3, 2, 1, 1, 2])),
        *((CHIRAL, {"numbers": wrong}) for wrong in ([3, 0, 1, 1, 0], [-1, 2, 1, 1, 0])),
        *((CHIRAL, {"numbers": wrong}) for wrong in ([3, 2, -1, 1, 0], [3, 2, 1, -1, 0])),
        *((MESSAGE, {"numbers": wrong}) for wrong in ([], [17], [0, 1], [17, 2], [17, 1, 1])),
        (CHIRAL, {"name": "painn-message"}),
        (MESSAGE, {"name": "linear"}),
        *((each, {"needs": wrong}) for each in NUMBERS for wrong in ([], [True] * 5)),
        *((each, {"grad": None}) for each in NUMBERS),
        *((each, {"needs": [True] * 4, **dict.fromkeys(TENSORS[1:4])}) for each in NUMBERS),
    ],
    ids=str,
)
def test_the_private_operator_refuses_what_it_has_no_kernel_for(
    operation: EdgeOperation, changes: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=changes.get("name", operation.name)):
        private_call(operation, **changes)


class Energy(torch.nn.Module):
    """Convolutions in a row from positions to a number, as a network of forces has them; already
    the first one's features depend on positions."""

    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        self.layers = layers
        generator = torch.Generator().manual_seed(0)
        self.scale = torch.nn.Parameter(
            torch.randn(CHIRAL.weight_size, dtype=torch.float64, generator=generator)
        )
        self.embedding = torch.nn.Parameter(
            torch.randn(CHIRAL.source_size, dtype=torch.float64, generator=generator)
        )

    def forward(self, positions: Tensor, edge_index: Tensor) -> Tensor:
        vectors = positions[edge_index[0]] - positions[edge_index[1]]
        distance = (vectors.square().sum(-1, keepdim=True) + 1).sqrt()
        harmonics = torch.cat([torch.ones_like(distance), vectors / distance], dim=-1)
        x = self.embedding * positions[:, :1]
        for _ in range(self.layers):
            weights = torch.tanh(distance) * self.scale
            x = along_edges(CHIRAL, x, harmonics, weights, edge_index)[:, : CHIRAL.source_size]
        return x.square().sum()


def energy_forces_gradients(
    model: Energy, energy_and_gradient: Any, positions: Tensor, edge_index: Tensor
) -> list[Tensor]:
    """Energy, forces, and the parameters' gradients of a loss that holds both."""
    gradient, energy = energy_and_gradient(positions, edge_index)
    parameters = torch.autograd.grad(energy + gradient.square().sum(), list(model.parameters()))
    return [energy.detach(), gradient.detach(), *parameters]


def by_autograd(model: Energy) -> Any:
    def run(positions: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        positions = positions.clone().requires_grad_()
        energy = model(positions, edge_index)
        return torch.autograd.grad(energy, positions, create_graph=True)[0], energy

    return run


def batches() -> list[tuple[Tensor, Tensor]]:
    made = []
    for nodes, edges in ((5, 14), (7, 31)):
        generator = torch.Generator().manual_seed(nodes)
        positions = torch.randn(nodes, 3, dtype=torch.float64, generator=generator)
        made.append((positions, torch.randint(0, nodes, (2, edges), generator=generator)))
    return made


def test_torch_func_gives_the_same_second_derivatives() -> None:
    model = Energy()
    for batch in batches():
        wanted = energy_forces_gradients(model, by_autograd(model), *batch)
        assert_close(
            energy_forces_gradients(model, torch.func.grad_and_value(model), *batch),
            wanted,
            ROUNDING,
        )


@pytest.mark.slow
def test_a_compiled_energy_and_its_gradient_give_the_same_second_derivatives() -> None:
    model = Energy(layers=1)
    compiled = torch.compile(torch.func.grad_and_value(model), fullgraph=True, dynamic=True)
    for batch in batches():
        wanted = energy_forces_gradients(model, by_autograd(model), *batch)
        assert_close(energy_forces_gradients(model, compiled, *batch), wanted, ROUNDING)


@pytest.mark.slow
def test_a_compiled_model_gives_the_same_gradients() -> None:
    model = Energy(layers=1)
    # Up to the C++, which is made above.
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    for batch in batches():
        wanted, found = (
            torch.autograd.grad(run(*batch), list(model.parameters())) for run in (model, compiled)
        )
        assert_close(list(found), list(wanted), ROUNDING)


def test_the_backend_says_what_it_does_not_do() -> None:
    cpu = torch.device("cpu")
    ours = backend("fused")
    assert ours.missing(cpu) is None
    assert "cpu and cuda only" in str(ours.missing(torch.device("mps")))
    with pytest.raises(UnsupportedError, match="bfloat16"):
        ours.build(CHIRAL, dtype=torch.bfloat16, device=cpu)
    with pytest.raises(UnsupportedError, match="does not do 'spherical-harmonics'"):
        ours.build(SphericalHarmonics(2), dtype=torch.float32, device=cpu)
    with pytest.raises(FailedError, match="cpu and cuda only"):
        ours.build(CHIRAL, dtype=torch.float32, device=torch.device("mps"))
