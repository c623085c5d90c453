"""The torch backend against the references, with derivatives, and as networks call it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from equivbench.kernels.backend import Kernel, UnsupportedError, backend
from equivbench.kernels.operations import CASES, Case, Operation, case
from equivbench.kernels.problem import make_inputs

CPU = torch.device("cpu")
FEW = {
    "nodes": 12,
    "edges": 40,
    "elements": 3,
    "molecules": 3,
    "atoms": 7,
    "samples": 1,
    "residues": 9,
    "size": 5,
}
SMALL = [replace(one, sizes={name: FEW[name] for name in one.sizes}) for one in CASES if one.quick]


def derivatives(
    function, inputs: dict[str, Tensor], operation: Operation, order: int
) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """Output, gradients for a fixed random cotangent, and gradients of a fixed random combination
    of these."""
    by = [inputs[name].requires_grad_() for name in operation.differentiable]
    output = function(**inputs)
    if not by or order == 0:
        return [output]
    generator = torch.Generator().manual_seed(7)
    cotangent = (
        torch.randn(output.shape, generator=generator, dtype=torch.float64)
        .to(output)
        .requires_grad_()
    )
    first = torch.autograd.grad(output, by, cotangent, create_graph=order > 1)
    if order == 1:
        return [output, *first]
    directions = [
        torch.randn(one.shape, generator=generator, dtype=torch.float64).to(one) for one in first
    ]
    second = torch.autograd.grad(first, [*by, cotangent], directions, allow_unused=True)
    # What a linear function has no second derivative by is None in one implementation and zero in
    # another.
    return [output, *first, *(one if one is not None else torch.zeros(()) for one in second)]


def disagreements(kernel: Kernel, one: Case, dtype: torch.dtype) -> list[float]:
    order = min(one.derivatives, kernel.max_derivatives)
    found = derivatives(kernel, make_inputs(one, dtype=dtype, device=CPU), one.operation, order)
    exact = derivatives(
        one.operation.reference,
        make_inputs(one, dtype=torch.float64, device=CPU),
        one.operation,
        order,
    )
    pairs = [
        (mine.detach().double(), theirs.detach().double())
        for mine, theirs in zip(found, exact, strict=True)
    ]
    return [float((mine - theirs).norm() / (theirs.norm() or 1.0)) for mine, theirs in pairs]


@pytest.mark.parametrize("one", SMALL, ids=lambda one: one.name)
@pytest.mark.parametrize(
    ("dtype", "allowed"),
    [(torch.float64, 1e-12), (torch.float32, 3e-5)],
    ids=["float64", "float32"],
)
def test_it_is_the_operation_to_rounding_with_its_derivatives(
    one: Case, dtype: torch.dtype, allowed: float
) -> None:
    kernel = backend("torch").build(one.operation, dtype=dtype, device=CPU)
    # Measured: 1e-15 and 3e-7; second derivatives by directions, through unit vectors, 3e-6.
    assert max(disagreements(kernel, one, dtype)) < allowed


def test_it_runs_everywhere_and_says_what_it_does_not_know() -> None:
    assert backend("torch").missing(CPU) is None
    with pytest.raises(UnsupportedError, match="does not do 'operation'"):
        backend("torch").build(
            type("Foreign", (Operation,), {"name": "operation"})(), dtype=torch.float32, device=CPU
        )


@pytest.mark.parametrize("name", ["convolution-c8-l2", "edge-product-c16-l2", "so2-c16-l2"])
def test_no_edges_give_zeros(name: str) -> None:
    one = case(name)
    inputs = make_inputs(
        replace(one, sizes={**one.sizes, "edges": 2}), dtype=torch.float64, device=CPU
    )
    per_edge = (
        ("harmonics", "weights", "environment", "vectors")
        if name != "edge-product-c16-l2"
        else ("harmonics", "environment", "x")
    )
    empty = {key: value[:0] if key in per_edge else value for key, value in inputs.items()}
    empty["edge_index"] = inputs["edge_index"][:, :0]
    output = backend("torch").build(one.operation, dtype=torch.float64, device=CPU)(**empty)
    assert output.shape[0] == len(empty["x"])
    assert output.norm() == 0
    assert one.operation.reference(**empty).shape == output.shape


def test_a_direction_on_the_polar_axis_has_finite_derivatives() -> None:
    one = replace(case("so2-c16-l2"), sizes={"nodes": 4, "edges": 4})
    inputs = make_inputs(one, dtype=torch.float64, device=CPU)
    inputs["vectors"][:2] = torch.tensor([[0.0, 1.3, 0.0], [0.0, -1.3, 0.0]], dtype=torch.float64)
    kernel = backend("torch").build(one.operation, dtype=torch.float64, device=CPU)
    assert all(
        bool(part.isfinite().all()) for part in derivatives(kernel, inputs, one.operation, 2)
    )
