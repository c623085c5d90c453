"""Every operation on every backend that is here, under torch's transforms: derivatives in reverse
and forward mode against finite differences, batches of them, and torch.compile. What one does not
do it refuses; a wrong number is never an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from equivbench.kernels.backend import Kernel, UnsupportedError, as_is, backend
from equivbench.kernels.measuring import why_absent
from equivbench.kernels.operations import (
    Case,
    Convolution,
    CubeConvolution,
    EdgeProduct,
    InvariantPointAttention,
    Linear,
    Operation,
    PaiNNMessage,
    PairBiasAttention,
    RadialBasis,
    SO2Convolution,
    SO2Message,
    SphericalHarmonics,
    SteerableConvolution,
    SymmetricContraction,
)
from equivbench.kernels.problem import make_inputs
from equivbench.registry import KERNEL_BACKENDS

CPU = torch.device("cpu")
SIZES = {"nodes": 4, "edges": 6, "elements": 2, "samples": 1, "residues": 3, "size": 3}
OPERATIONS: tuple[tuple[Operation, int], ...] = (
    (Convolution((2, 1), 1, 2), 2),
    (Convolution((1, 1), 1, 1, parity=False), 2),
    (PaiNNMessage(2), 2),
    (PaiNNMessage(1, vectors=False), 2),
    (EdgeProduct(1, 1), 2),
    (SymmetricContraction(2, 1, 1), 2),
    (SO2Convolution(1, 2, 1, 1), 2),
    (SO2Message(1, 2, 2, 1, 1), 2),
    (SphericalHarmonics(3), 2),
    (Linear((2, 1), (1, 2)), 2),
    (RadialBasis(3, 5.0), 2),
    (PairBiasAttention(2, 3), 1),
    (InvariantPointAttention(1, 2, 1, 1), 1),
    (SteerableConvolution((1, 1), (1, 1), 1, 2.5, 2), 1),
    (CubeConvolution(1, 1, 3), 1),
)
BACKENDS = [
    name
    for name, entry in KERNEL_BACKENDS.entries().items()
    if not entry.value.slow_to_build and why_absent(name, CPU) is None
]


@dataclass(frozen=True)
class Subject:
    """A kernel as a function of what it is differentiated by."""

    place: tuple[str, str]
    """Backend and operation."""
    kernel: Kernel
    order: int
    by: tuple[str, ...]
    inputs: dict[str, Tensor]

    def __call__(self, *values: Tensor) -> Tensor:
        return self.kernel(**{**self.inputs, **dict(zip(self.by, values, strict=True))})

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        return tuple(self.inputs[name].clone().requires_grad_() for name in self.by)


@pytest.fixture(params=OPERATIONS, ids=lambda one: str(one[0]))
def operation(request: pytest.FixtureRequest) -> tuple[Operation, int]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=BACKENDS)
def subject(request: pytest.FixtureRequest, operation: tuple[Operation, int]) -> Subject:
    stated, order = operation
    try:
        kernel = backend(request.param).build(stated, dtype=torch.float64, device=CPU)
    except UnsupportedError as error:
        pytest.skip(str(error))
    case = Case("test", stated, SIZES, order, "")
    inputs = make_inputs(case, dtype=torch.float64, device=CPU)
    place = (request.param, stated.name)
    return Subject(place, kernel, min(order, kernel.max_derivatives), stated.differentiable, inputs)


REFUSED: dict[str, set[tuple[str, str]]] = {
    "forward mode": {("torch", "pair-bias-attention")},
    "forward over reverse": set(),
    "batches of gradients": set(),
    "vmap": set(),
    "torch.func": {("torch", "pair-bias-attention")},
    "compiled": set(),
    # The edge product's number of centres depends on numbers: torch.unique.
    "compiled forward mode": {("torch", "edge-product"), ("torch", "pair-bias-attention")},
}
"""(backend, operation) that torch or a library has no rule for, by transform: there must be an
error, and never a number."""


OURS = ("torch", "fused", "e3nn")
"""The backends whose refusals are listed; what other libraries have no rule for is theirs to
say."""


def holds_or_is_refused(subject: Subject, transform: str, check: Callable[[], bool]) -> None:
    listed = subject.place in REFUSED[transform]
    try:
        assert check()
    except GradcheckError:
        # Finite differences that disagree are no refusal.
        raise
    except (RuntimeError, NotImplementedError):
        if not listed and subject.place[0] in OURS:
            raise
    else:
        assert not listed, "it has a rule now; take it off the list"


def test_in_reverse_once_and_twice(subject: Subject) -> None:
    assert torch.autograd.gradcheck(subject, subject.arguments, fast_mode=True)
    if subject.order > 1:
        assert torch.autograd.gradgradcheck(subject, subject.arguments, fast_mode=True)


def test_in_forward_mode(subject: Subject) -> None:
    holds_or_is_refused(
        subject,
        "forward mode",
        lambda: torch.autograd.gradcheck(
            subject, subject.arguments, fast_mode=True, check_forward_ad=True
        ),
    )


def test_forward_over_reverse(subject: Subject) -> None:
    if subject.order < 2:
        pytest.skip("networks differentiate it once")
    holds_or_is_refused(
        subject,
        "forward over reverse",
        lambda: torch.autograd.gradgradcheck(
            subject, subject.arguments, fast_mode=True, check_fwd_over_rev=True
        ),
    )


def test_batches_of_gradients(subject: Subject) -> None:
    holds_or_is_refused(
        subject,
        "batches of gradients",
        lambda: torch.autograd.gradcheck(
            subject, subject.arguments, fast_mode=True, check_batched_grad=True
        ),
    )


def moved(subject: Subject, steps: int = 3) -> list[tuple[Tensor, ...]]:
    """Other arguments of the same shapes."""
    return [
        tuple((one * (1 + step / 16)).detach() for one in subject.arguments)
        for step in range(steps)
    ]


def assert_same(found: Tensor, wanted: Tensor) -> None:
    # Sums of tens of numbers in another order.
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_a_batch_of_calls_is_the_calls_one_by_one(subject: Subject) -> None:
    calls = moved(subject)

    def same() -> bool:
        found = torch.vmap(subject)(*(torch.stack(one) for one in zip(*calls, strict=True)))
        assert_same(found, torch.stack([subject(*one) for one in calls]))
        # One argument in a batch, the others alike for all; in another dimension.
        stacked = torch.stack([one[0] for one in calls], dim=1)
        dims = (1, *[None] * (len(subject.by) - 1))
        found = torch.vmap(subject, in_dims=dims, out_dims=1)(stacked, *calls[0][1:])
        one_by_one = [subject(one[0], *calls[0][1:]) for one in calls]
        assert_same(found, torch.stack(one_by_one, dim=1))
        return True

    holds_or_is_refused(subject, "vmap", same)


def test_derivatives_of_torch_func_are_those_of_autograd(subject: Subject) -> None:
    arguments = tuple(one.detach() for one in subject.arguments)
    weights = torch.linspace(0.5, 1.5, subject(*arguments).numel(), dtype=torch.float64)

    def loss(first: Tensor) -> Tensor:
        return (subject(first, *arguments[1:]).flatten() * weights).sin().sum()

    first = arguments[0]
    gradient = torch.autograd.functional.jacobian(loss, first)
    direction = torch.linspace(-1, 1, first.numel(), dtype=torch.float64).view_as(first)

    def same() -> bool:
        assert_same(torch.func.grad(loss)(first), gradient)
        assert_same(torch.func.jvp(loss, (first,), (direction,))[1], (gradient * direction).sum())
        if subject.order > 1:
            wanted = torch.autograd.functional.hessian(loss, first)
            for transform in (
                torch.func.hessian(loss),
                torch.func.jacrev(torch.func.jacrev(loss)),
                torch.func.jacrev(torch.func.jacfwd(loss)),
                torch.func.jacfwd(torch.func.jacfwd(loss)),
            ):
                assert_same(transform(first), wanted)
        return True

    holds_or_is_refused(subject, "torch.func", same)


compiled_ones = pytest.mark.parametrize(
    "operation",
    # The others are the same code with other paths, which are constants to a compiler.
    [
        one
        for one in OPERATIONS
        if one[0] not in (Convolution((1, 1), 1, 1, parity=False), PaiNNMessage(1, vectors=False))
    ],
    ids=lambda one: str(one[0]),
    indirect=True,
)


@pytest.mark.slow
@compiled_ones
# Dynamo looks at each input's gradient, those included that come out of a change of layout.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_compiled_it_is_the_same(subject: Subject) -> None:
    # What torch traces, differentiates and makes functional, without the seconds of a C++ compiler.
    torch.compiler.reset()
    # With sizes left open where a network does so; torch thinks for minutes about those of others.
    dynamic = True if subject.place[1] in ("convolution", "painn-message") else None
    run = torch.compile(subject.kernel.run, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    compiled = replace(subject, kernel=replace(subject.kernel, run=run))
    arguments = subject.arguments

    def same() -> bool:
        wanted, found = subject(*arguments), compiled(*arguments)
        assert_same(found, wanted)
        ones = torch.ones_like(wanted)
        gradients = zip(
            torch.autograd.grad(found, arguments, ones),
            torch.autograd.grad(wanted, arguments, ones),
            strict=True,
        )
        for mine, theirs in gradients:
            assert_same(mine, theirs)
        return True

    holds_or_is_refused(subject, "compiled", same)


@pytest.mark.slow
@compiled_ones
def test_compiled_forward_mode_is_the_same(subject: Subject) -> None:
    if subject.kernel.adapt is not as_is:
        pytest.skip("its layout is changed outside of what is compiled")
    arguments = tuple(one.detach() for one in subject.arguments)
    directions = tuple(one.flip(0) for one in arguments)

    def along(*values: Tensor) -> Tensor:
        return torch.func.jvp(subject, values, directions)[1]

    def same() -> bool:
        wanted = along(*arguments)
        torch.compiler.reset()
        compiled = torch.compile(along, backend="aot_eager", fullgraph=True)
        assert_same(compiled(*arguments), wanted)
        return True

    holds_or_is_refused(subject, "compiled forward mode", same)
