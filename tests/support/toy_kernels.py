"""Kernels of the convolution that are wrong, each in its own way, as registered backends; and right
ones beside them."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from equivbench.kernels.backend import Kernel
from equivbench.kernels.operations import Case, Convolution, Operation
from equivbench.registry import KERNEL_BACKENDS, register_kernel_backend

TOY = Case("toy", Convolution((3, 2), 1, 1), {"nodes": 12, "edges": 60}, 2, "a toy", quick=True)
MANY_EDGES = Case(
    "many-edges",
    Convolution((1,), 0, 0),
    {"nodes": 500, "edges": 10_000},
    2,
    "one channel, 10,000 edges",
)

Inputs = Mapping[str, Tensor]
Run = Callable[[Inputs], Tensor]
Change = Callable[[Operation], Run]


def right(operation: Operation) -> Run:
    """The reference itself, in the dtype it is given."""
    function = operation.reference
    return lambda inputs: function(**inputs)


@contextmanager
def registered(**changes: Change | Callable[[Operation], Kernel]) -> Iterator[None]:
    """Backends by name, made of functions from an operation to ``run`` or to a kernel; taken back
    at the end."""
    before = KERNEL_BACKENDS.entries()
    try:
        for name, change in changes.items():
            register_kernel_backend(name, summary="for a test")(
                lambda change=change: _Backend(change)
            )
        yield
    finally:
        KERNEL_BACKENDS.restore(before)


class _Backend:
    def __init__(self, change: Callable[[Operation], Run | Kernel]) -> None:
        self._change = change

    def missing(self, device: torch.device) -> str | None:
        return None

    def build(self, operation: Operation, *, dtype: torch.dtype, device: torch.device) -> Kernel:
        made = self._change(operation)
        return made if isinstance(made, Kernel) else Kernel(made, "by hand")


def wrong_sign(operation: Operation) -> Run:
    run = right(operation)
    return lambda inputs: -run(inputs)


def skipped_backward(operation: Operation) -> Run:
    run = right(operation)
    return lambda inputs: run({**inputs, "x": inputs["x"].detach()})


def zero_backward(operation: Operation) -> Run:
    run = right(operation)
    return lambda inputs: run({**inputs, "x": inputs["x"].detach()}) + 0.0 * inputs["x"].sum()


def no_backward_at_all(operation: Operation) -> Run:
    run = right(operation)
    return lambda inputs: run({name: tensor.detach() for name, tensor in inputs.items()})


def dropped_edge(operation: Operation) -> Run:
    run = right(operation)

    def without_the_last(inputs: Inputs) -> Tensor:
        edges = {name: inputs[name][:-1] for name in ("harmonics", "weights")}
        return run({**inputs, **edges, "edge_index": inputs["edge_index"][:, :-1]})

    return without_the_last


class _Once(torch.autograd.Function):
    """The right first derivatives, from which autograd cannot go on."""

    @staticmethod
    def forward(ctx, run, keep, edge_index, *tensors):
        ctx.run, ctx.keep, ctx.edge_index = run, keep, edge_index
        ctx.save_for_backward(*tensors)
        return run(
            dict(zip(("x", "harmonics", "weights"), tensors, strict=True), edge_index=edge_index)
        )

    @staticmethod
    def backward(ctx, cotangent):
        leaves = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
        with torch.enable_grad():
            output = ctx.run(
                dict(
                    zip(("x", "harmonics", "weights"), leaves, strict=True),
                    edge_index=ctx.edge_index,
                )
            )
            found = torch.autograd.grad(output, leaves, cotangent.detach())
        # What is kept makes a connection through which nothing flows.
        return None, None, None, *(gradient + ctx.keep * cotangent.sum() for gradient in found)


def _once(keep: float) -> Change:
    def change(operation: Operation) -> Run:
        run = right(operation)
        names = ("x", "harmonics", "weights")
        return lambda inputs: _Once.apply(
            run, keep, inputs["edge_index"], *(inputs[name] for name in names)
        )

    return change


zero_second_derivative = _once(0.0)


class _NoRule(torch.autograd.Function):
    """The identity, right in reverse mode, that has no rule for tangents."""

    @staticmethod
    def forward(ctx, tensor):
        return tensor.clone()

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent


class _Still(_NoRule):
    """The same with a rule by which it stands still along them."""

    @staticmethod
    def jvp(ctx, tangent):
        return torch.zeros_like(tangent)


def zero_tangent(operation: Operation) -> Run:
    run = right(operation)
    return lambda inputs: _Still.apply(run(inputs))


def no_tangent(operation: Operation) -> Run:
    run = right(operation)

    def without(inputs: Inputs) -> Tensor:
        output = run(inputs)
        return output if output.requires_grad else output.detach()

    return without


def no_forward_mode(operation: Operation) -> Run:
    run = right(operation)
    return lambda inputs: _NoRule.apply(run(inputs))


def missing_second_derivative(operation: Operation) -> Run:
    run = _once(0.0)(operation)
    kept = right(operation)

    class Detached(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *tensors):
            ctx.save_for_backward(*tensors)
            return kept(
                dict(zip(("x", "harmonics", "weights", "edge_index"), tensors, strict=True))
            )

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, cotangent):
            *leaves, edge_index = ctx.saved_tensors
            leaves = [tensor.detach().requires_grad_() for tensor in leaves]
            with torch.enable_grad():
                given = dict(
                    zip(("x", "harmonics", "weights"), leaves, strict=True), edge_index=edge_index
                )
                found = torch.autograd.grad(run(given), leaves, cotangent)
            return *found, None

    return lambda inputs: Detached.apply(
        *(inputs[name] for name in ("x", "harmonics", "weights", "edge_index"))
    )


def contiguous_only(operation: Operation) -> Run:
    run = right(operation)

    def as_if_contiguous(tensor: Tensor) -> Tensor:
        packed = torch.empty(tensor.shape, device="meta").stride()
        return tensor.as_strided(tensor.shape, packed)

    return lambda inputs: run({**inputs, "weights": as_if_contiguous(inputs["weights"])})


class _PackedCotangent(torch.autograd.Function):
    """The identity; its backward takes its argument for contiguous."""

    @staticmethod
    def forward(ctx, tensor):
        return tensor.clone()

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent.as_strided(
            cotangent.shape, torch.empty(cotangent.shape, device="meta").stride()
        )


def contiguous_cotangent_only(operation: Operation) -> Run:
    run = right(operation)
    return lambda inputs: _PackedCotangent.apply(run(inputs))


def first_output(operation: Operation) -> Run:
    run = right(operation)
    kept: list[Tensor] = []

    def remembered(inputs: Inputs) -> Tensor:
        if not kept:
            kept.append(run(inputs))
        return kept[0]

    return remembered


def remembers_by_address(operation: Operation) -> Run:
    run = right(operation)
    kept: dict[int, Tensor] = {}

    def remembered(inputs: Inputs) -> Tensor:
        fresh = run(inputs)
        old = kept.setdefault(inputs["x"].data_ptr(), fresh.detach().clone())
        return fresh + (old - fresh).detach()

    return remembered


def writes_into_inputs(operation: Operation) -> Run:
    run = right(operation)

    def careless(inputs: Inputs) -> Tensor:
        output = run(inputs)
        inputs["harmonics"].data[0, 0] += 1.0
        return output

    return careless


def writes_into_indices(operation: Operation) -> Run:
    run = right(operation)

    def careless(inputs: Inputs) -> Tensor:
        output = run(inputs)
        inputs["edge_index"].copy_(inputs["edge_index"].flip(1))
        return output

    return careless


def asynchronous(operation: Operation) -> Run:
    run = right(operation)

    def later(inputs: Inputs) -> Tensor:
        result = run(inputs)
        promised = torch.zeros_like(result)

        def fill() -> None:
            time.sleep(0.2)
            with torch.no_grad():
                promised.copy_(result)

        threading.Thread(target=fill, daemon=True).start()
        return promised

    return later


class _Lazy(Tensor):
    """A tensor that could do its work when it is looked at."""


def lazy(operation: Operation) -> Run:
    run = right(operation)
    return lambda inputs: run(inputs).as_subclass(_Lazy)


def not_a_number(operation: Operation) -> Run:
    run = right(operation)
    return lambda inputs: (
        run(inputs) * torch.tensor([float("nan")] + [1.0] * (TOY.sizes["nodes"] - 1))[:, None]
    )


def other_precision(operation: Operation) -> Run:
    run = right(operation)
    return lambda inputs: run(inputs).double()


def rounded(operation: Operation) -> Run:
    run = right(operation)
    return lambda inputs: run(inputs).bfloat16().float()


def wrong_shape(operation: Operation) -> Run:
    run = right(operation)
    return lambda inputs: run(inputs)[:-1]


def raises_an_error(operation: Operation) -> Run:
    def broken(inputs: Inputs) -> Tensor:
        raise ZeroDivisionError("inside")

    return broken


def transposed(operation: Operation) -> Kernel:
    """Right, in a layout of its own: features first, weights and harmonics in one tensor, twice as
    large."""
    run = right(operation)
    assert isinstance(operation, Convolution)
    size = operation.weight_size

    def adapt(inputs: Inputs) -> dict[str, Tensor]:
        edges = torch.cat([2.0 * inputs["weights"], inputs["harmonics"]], dim=1)
        return {
            "nodes": inputs["x"].t(),
            "edges": edges.t().contiguous(),
            "edge_index": inputs["edge_index"].flip(0),
        }

    def own_layout(inputs: Inputs) -> Tensor:
        edges = inputs["edges"].t()
        stated = {
            "x": inputs["nodes"].t(),
            "weights": edges[:, :size] / 2.0,
            "harmonics": edges[:, size:],
        }
        return 3.0 * run({**stated, "edge_index": inputs["edge_index"].flip(0)}).t()

    return Kernel(own_layout, "by hand, transposed", adapt, lambda output: output.t() / 3.0)


def _after(calls: int, error: Callable[[], BaseException]) -> Change:
    """Right for so many calls, of which eight come before the first round; then ``error`` is
    raised."""

    def change(operation: Operation) -> Run:
        run, count = right(operation), itertools.count()

        def once_too_often(inputs: Inputs) -> Tensor:
            if next(count) >= calls:
                raise error()
            return run(inputs)

        return once_too_often

    return change


breaks_later = _after(9, lambda: RuntimeError("out of order"))
interrupted_later = _after(9, KeyboardInterrupt)
interrupted_at_once = _after(0, KeyboardInterrupt)
