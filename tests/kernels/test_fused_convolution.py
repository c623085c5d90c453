"""Our convolution on a CPU: the values and derivatives of the reference, on every kind of input,
under every transform."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from equivbench.errors import FailedError
from equivbench.kernels.backend import UnsupportedError, backend
from equivbench.kernels.fused import native
from equivbench.kernels.fused.convolution import convolve
from equivbench.kernels.fused.native import no_compiler
from equivbench.kernels.operations import Convolution, SphericalHarmonics

pytestmark = pytest.mark.skipif(no_compiler() is not None, reason=str(no_compiler()))

# Channels that fill vectors, that leave some over, and that are fewer than a vector holds; paths of
# both parities.
UNEVEN = Convolution((17, 5, 1), 2, 2)
CHIRAL = Convolution((3, 2), 1, 1, parity=False)
OPERATIONS = (UNEVEN, CHIRAL)
ROUNDING = 1e-13
"""Relative, in float64: sums of some hundred products in another order."""
Inputs = dict[str, Tensor]


@pytest.fixture(autouse=True)
def few_edges_a_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two threads take part even for the few edges of a test."""
    monkeypatch.setattr(native, "EDGES_A_THREAD", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def make(
    operation: Convolution, nodes: int = 6, edges: int = 25, dtype: torch.dtype = torch.float64
) -> Inputs:
    """Random inputs with unsorted edges, repeated ones among them; the last node has none."""
    generator = torch.Generator().manual_seed(nodes + edges)

    def normal(*shape: int) -> Tensor:
        return (
            torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()
        )

    return {
        "x": normal(nodes, operation.source_size),
        "harmonics": normal(edges, (operation.edge_lmax + 1) ** 2),
        "weights": normal(edges, operation.weight_size),
        "edge_index": torch.randint(0, max(1, nodes - 1), (2, edges), generator=generator),
    }


def derivatives(
    function: Any, inputs: Inputs, by: tuple[str, ...] = ("x", "harmonics", "weights")
) -> list[Tensor]:
    """The output, its gradients by ``by``, and second gradients by these and the cotangent, for
    fixed random cotangents."""
    generator = torch.Generator().manual_seed(0)

    def like(one: Tensor) -> Tensor:
        return torch.randn(one.shape, dtype=torch.float64, generator=generator).to(one.dtype)

    output = function(**inputs)
    cotangent = like(output).requires_grad_()
    chosen = [inputs[name] for name in by]
    first = torch.autograd.grad(output, chosen, cotangent, create_graph=True)
    second = torch.autograd.grad(
        first, [cotangent, *chosen], [like(one) for one in first], materialize_grads=True
    )
    return [output.detach(), *(one.detach() for one in (*first, *second))]


def assert_close(found: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert float((one - other).norm()) <= tolerance * float(other.norm())


def fused(operation: Convolution) -> Any:
    return lambda **inputs: convolve(operation, **inputs)


@pytest.mark.parametrize("operation", OPERATIONS, ids=("uneven", "chiral"))
def test_values_and_derivatives_are_the_references(operation: Convolution) -> None:
    inputs = make(operation)
    assert_close(
        derivatives(fused(operation), inputs), derivatives(operation.reference, inputs), ROUNDING
    )


@pytest.mark.parametrize(
    "by",
    [("x",), ("harmonics",), ("weights",), ("x", "weights"), ("harmonics", "weights")],
    ids="-".join,
)
def test_each_set_of_inputs_that_need_gradients(by: tuple[str, ...]) -> None:
    inputs = {name: one.detach().requires_grad_(name in by) for name, one in make(UNEVEN).items()}
    assert_close(
        derivatives(fused(UNEVEN), inputs, by), derivatives(UNEVEN.reference, inputs, by), ROUNDING
    )


@pytest.mark.parametrize(("nodes", "edges"), [(3, 0), (1, 4), (1, 1), (6, 9)])
def test_sizes_at_the_edge(nodes: int, edges: int) -> None:
    inputs = make(UNEVEN, nodes, edges)
    # Freed memory that is not zero: a row that the kernel forgets to write would show.
    torch.full((nodes, UNEVEN.target_size), 7.0, dtype=torch.float64)
    assert_close(
        derivatives(fused(UNEVEN), inputs), derivatives(UNEVEN.reference, inputs), ROUNDING
    )


def test_inputs_need_not_be_contiguous() -> None:
    inputs = make(UNEVEN)
    strided = {
        name: one.detach().mT.contiguous().mT.requires_grad_(one.requires_grad)
        for name, one in inputs.items()
    }
    assert not strided["weights"].is_contiguous()
    assert_close(derivatives(fused(UNEVEN), strided), derivatives(fused(UNEVEN), inputs), 0)


def test_float32_rounds_and_no_more() -> None:
    inputs = make(UNEVEN, dtype=torch.float32)
    exact = {
        name: one.detach().double().requires_grad_() if one.requires_grad else one
        for name, one in inputs.items()
    }
    found = [one.double() for one in derivatives(fused(UNEVEN), inputs)]
    # Sums of tens to hundreds of products rounded to 6e-8 each; cotangents are rounded to float32
    # too.
    assert_close(found, derivatives(fused(UNEVEN), exact), 1e-6)


def test_under_autocast_it_is_computed_in_float32() -> None:
    inputs = make(UNEVEN, dtype=torch.float32)
    narrow = {
        name: one.detach().bfloat16().requires_grad_() if name in ("x", "weights") else one
        for name, one in inputs.items()
    }
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = convolve(UNEVEN, **narrow)
        assert output.dtype == torch.float32
        gradients = torch.autograd.grad(output.sum(), [narrow["x"], narrow["harmonics"]])
    assert [one.dtype for one in gradients] == [torch.bfloat16, torch.float32]
    wide = {
        name: one.detach().float() if one.dtype == torch.bfloat16 else one
        for name, one in narrow.items()
    }
    assert torch.equal(output, convolve(UNEVEN, **wide))


def test_the_same_bits_at_the_same_threads_and_close_at_others() -> None:
    inputs = make(UNEVEN, nodes=30, edges=200)
    once, again = derivatives(fused(UNEVEN), inputs), derivatives(fused(UNEVEN), inputs)
    assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))
    torch.set_num_threads(1)
    assert_close(derivatives(fused(UNEVEN), inputs), once, ROUNDING)


def test_a_third_derivative_is_an_error_not_nothing() -> None:
    inputs = make(CHIRAL)
    first = torch.autograd.grad(
        convolve(CHIRAL, **inputs).square().sum(), inputs["x"], create_graph=True
    )[0]
    second = torch.autograd.grad(first.square().sum(), inputs["weights"], create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="first and second derivatives only"):
        second.square().sum().backward()


def test_inputs_are_left_as_they_are() -> None:
    inputs = make(UNEVEN)
    before = {name: one.detach().clone() for name, one in inputs.items()}
    derivatives(fused(UNEVEN), inputs)
    assert all(torch.equal(inputs[name], before[name]) for name in inputs)


def test_a_wrong_node_is_an_error_not_a_crash() -> None:
    inputs = make(CHIRAL)
    for wrong in (-1, len(inputs["x"]), 2**40):
        for row in (0, 1):
            edge_index = inputs["edge_index"].clone()
            edge_index[row, 3] = wrong
            with pytest.raises(IndexError, match="not among the 6"):
                convolve(CHIRAL, **{**inputs, "edge_index": edge_index})


def test_wrong_shapes_and_types_are_errors() -> None:
    inputs = make(CHIRAL)
    with pytest.raises(ValueError, match="weights of the convolution"):
        convolve(CHIRAL, **{**inputs, "weights": inputs["weights"][:, 1:]})
    with pytest.raises(ValueError, match=r"must be torch\.int64"):
        convolve(CHIRAL, **{**inputs, "edge_index": inputs["edge_index"].int()})
    with pytest.raises(ValueError, match=r"it must be torch\.float64"):
        convolve(CHIRAL, **{**inputs, "harmonics": inputs["harmonics"].float()})
    with pytest.raises(ValueError, match=r"must be torch\.float32 or torch\.float64"):
        halves = {name: one.half() for name, one in inputs.items() if name != "edge_index"}
        convolve(CHIRAL, **halves, edge_index=inputs["edge_index"])


GRADIENTS = [False, True, True, True]


def private_call(**changes: Any) -> Any:
    """A call of the private operator for second derivatives, with ``changes``."""
    inputs = {name: one.detach() for name, one in make(CHIRAL).items()}
    arguments: dict[str, Any] = {
        "needs": GRADIENTS,
        "grad": torch.zeros(6, CHIRAL.target_size, dtype=torch.float64),
        **{f"by_{name}": inputs[name] for name in ("x", "harmonics", "weights")},
        **inputs,
        "channels": list(CHIRAL.channels),
        "edge_lmax": CHIRAL.edge_lmax,
        "target_lmax": CHIRAL.target_lmax,
        "parity": CHIRAL.parity,
    }
    return torch.ops.equivbench.fused_convolution(*(arguments | changes).values())


TENSORS = ("grad", "by_x", "by_harmonics", "by_weights", "x", "harmonics", "weights", "edge_index")
SPOILT = {
    "a row less": lambda one: one[1:],
    "a column less": lambda one: one[:, 1:],
    "no rows": lambda one: one[:0],
    "one dimension": lambda one: one.flatten(),
    "none at all": lambda one: one.sum(),
    "another precision": lambda one: one.float(),
    "whole numbers": lambda one: one.int(),
    "sparse": lambda one: one.to_sparse(),
}


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_the_private_operator_reads_no_memory_that_is_not_there(
    name: str, spoil: Callable[[Tensor], Tensor]
) -> None:
    rows = {"grad": 6, "x": 6, "by_x": 6, "edge_index": 2}.get(name, 25)
    sizes = {
        "grad": CHIRAL.target_size,
        "edge_index": 25,
        **dict.fromkeys(("x", "by_x"), CHIRAL.source_size),
        **dict.fromkeys(("harmonics", "by_harmonics"), 4),
        **dict.fromkeys(("weights", "by_weights"), CHIRAL.weight_size),
    }
    one = torch.zeros(rows, sizes[name], dtype=torch.float64)
    right = one.long() if name == "edge_index" else one
    assert len(private_call(**{name: right})) == 4
    with pytest.raises((ValueError, NotImplementedError)):
        private_call(**{name: spoil(right)})


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": []},
        {"channels": [3, 0]},
        {"channels": [-1, 2]},
        {"edge_lmax": -1},
        {"target_lmax": -1},
        {"needs": []},
        {"needs": [True] * 5},
        {"grad": None},
        {"needs": [True] * 4, "by_x": None, "by_harmonics": None, "by_weights": None},
    ],
    ids=str,
)
def test_the_private_operator_refuses_what_it_has_no_kernel_for(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="convolution"):
        private_call(**changes)


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
            x = convolve(CHIRAL, x, harmonics, torch.tanh(distance) * self.scale, edge_index)[
                :, : CHIRAL.source_size
            ]
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
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
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
    kernel = ours.build(CHIRAL, dtype=torch.float64, device=cpu)
    assert_close(derivatives(kernel, make(CHIRAL)), derivatives(fused(CHIRAL), make(CHIRAL)), 0)
