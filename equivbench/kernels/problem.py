"""A case posed: two sets of inputs, in the stated layout, with the float64 answers that every
backend is held against, and what one call of a mode is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from equivbench.kernels.backend import Tensors, UnsupportedError
from equivbench.kernels.operations import Case
from equivbench.records.line_files import MODES, Mode

Results = dict[str, Tensor | None]
"""``output``; from ``backward`` on ``gradient NAME``; in ``double_backward`` also ``second NAME``
and ``second cotangent``. None where autograd has none."""
COTANGENT = "cotangent"


@dataclass(frozen=True)
class Arguments:
    """What a call of a mode is given."""

    inputs: Tensors
    cotangent: Tensor | None = None
    """Of the output's shape: the gradient that arrives from above. Not needed by ``forward``."""
    directions: Tensors | None = None
    """For each differentiable input, of its shape: the gradient that arrives at its gradient. For
    ``double_backward`` only."""


def evaluate(
    run: Callable[[Tensors], Tensor],
    mode: Mode,
    arguments: Arguments,
    differentiable: tuple[str, ...],
) -> Results:
    """One call of ``run`` in ``mode``, by torch's autograd alone.

    The differentiable inputs, and in ``double_backward`` the cotangent, must require gradients. A
    derivative that autograd does not connect is None.
    """
    if mode == "forward":
        with torch.no_grad():
            return {"output": run(arguments.inputs)}
    output = run(arguments.inputs)
    by = [arguments.inputs[name] for name in differentiable]
    assert arguments.cotangent is not None
    if not output.requires_grad:
        return {"output": output, **{f"gradient {name}": None for name in differentiable}}
    twice = mode == "double_backward"
    gradients = torch.autograd.grad(
        output, by, arguments.cotangent, create_graph=twice, allow_unused=True
    )
    results: Results = {"output": output}
    results |= {
        f"gradient {name}": gradient
        for name, gradient in zip(differentiable, gradients, strict=True)
    }
    if not twice:
        return results
    assert arguments.directions is not None
    connected = [
        (gradient, arguments.directions[name])
        for name, gradient in zip(differentiable, gradients, strict=True)
        if gradient is not None and gradient.requires_grad
    ]
    names = [*differentiable, COTANGENT]
    seconds: tuple[Tensor | None, ...] = (None,) * len(names)
    if connected:
        targets, directions = zip(*connected, strict=True)
        seconds = torch.autograd.grad(
            targets, [*by, arguments.cotangent], directions, allow_unused=True
        )
    return results | {f"second {name}": second for name, second in zip(names, seconds, strict=True)}


_SECOND_SEED = 1_000_003
"""Added to the seed for the second set of inputs and for what is drawn beside the inputs."""


@dataclass(frozen=True)
class Instance:
    """Arguments in the stated layout, in the dtype that is timed, and the float64 results for
    exactly these numbers."""

    arguments: Arguments
    answers: dict[str, Tensor]


@dataclass(frozen=True)
class KernelProblem:
    """A case at a dtype on a device. The instances have the same indices and masks but other
    numbers.

    With one instance alone a backend that returns what it returned before would be right.
    """

    case: Case
    mode: Mode
    """The highest mode that ``instances`` have answers for."""
    dtype: torch.dtype
    device: torch.device
    instances: tuple[Instance, Instance]


def make_inputs(
    case: Case, *, dtype: torch.dtype, device: torch.device, seed: int = 0
) -> dict[str, Tensor]:
    """The inputs that ``case.operation`` states, of order one, none of which requires a gradient:
    the same numbers for every backend, dtype and device.

    They are drawn in float64 on the CPU and fixed by ``seed`` alone, then rounded to numbers that
    float32 holds, so that a float32 kernel and its float64 reference see the same ones, and cast to
    ``dtype``.
    """
    drawn = case.operation.draw(case.sizes, torch.Generator().manual_seed(seed))
    return {
        name: tensor.float().to(device=device, dtype=dtype)
        if tensor.is_floating_point()
        else tensor.to(device)
        for name, tensor in drawn.items()
    }


def pose(
    case: Case, mode: Mode, *, dtype: torch.dtype, device: torch.device, seed: int = 0
) -> KernelProblem:
    """Draw the inputs of ``case`` and compute their answers for ``mode`` and those below it.

    Raises ``UnsupportedError`` for derivatives of an operation that has none.
    """
    if mode != "forward" and not case.operation.differentiable:
        raise UnsupportedError(
            f"{case.name} has no derivatives ({case.operation.name} is not differentiable);"
            " use forward"
        )
    first = make_inputs(case, dtype=dtype, device=device, seed=seed)
    second = make_inputs(case, dtype=dtype, device=device, seed=seed + _SECOND_SEED)
    # Networks use one set of neighbours in all layers: what a backend computes from indices once is
    # not computed each call.
    second = {
        name: second[name] if tensor.is_floating_point() else tensor
        for name, tensor in first.items()
    }
    instances = (
        _instance(case, mode, first, seed),
        _instance(case, mode, second, seed + _SECOND_SEED),
    )
    return KernelProblem(case, mode, dtype, device, instances)


def names(case: Case, mode: Mode) -> tuple[str, ...]:
    """What the results of ``mode`` are called in the stated layout."""
    by = case.operation.differentiable
    found = [
        "output",
        *(f"gradient {name}" for name in by),
        *(f"second {name}" for name in (*by, COTANGENT)),
    ]
    return tuple(found[: (1, 1 + len(by), len(found))[MODES.index(mode)]])


def _instance(case: Case, mode: Mode, inputs: dict[str, Tensor], seed: int) -> Instance:
    exact = {
        name: tensor.double() if tensor.is_floating_point() else tensor
        for name, tensor in inputs.items()
    }
    function = case.operation.reference
    if mode == "forward":
        arguments = Arguments(inputs)
        return Instance(arguments, {"output": function(**exact)})
    dtype = inputs[case.operation.differentiable[0]].dtype
    generator = torch.Generator().manual_seed(seed + 2 * _SECOND_SEED)

    def drawn_like(tensor: Tensor) -> Tensor:
        numbers = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        return numbers.to(device=tensor.device, dtype=dtype)

    with torch.no_grad():
        cotangent = drawn_like(function(**exact))
    twice = mode == "double_backward"
    directions = (
        {name: drawn_like(inputs[name]) for name in case.operation.differentiable}
        if twice
        else None
    )
    by = {name: exact[name].requires_grad_() for name in case.operation.differentiable}
    arguments = Arguments(
        exact | by,
        cotangent.double().requires_grad_(twice),
        None
        if directions is None
        else {name: tensor.double() for name, tensor in directions.items()},
    )
    results = evaluate(
        lambda given: function(**given), mode, arguments, case.operation.differentiable
    )
    answers = {
        name: torch.zeros_like(_like(name, arguments)) if result is None else result.detach()
        for name, result in results.items()
    }
    return Instance(Arguments(inputs, cotangent, directions), answers)


def _like(name: str, arguments: Arguments) -> Tensor:
    """The argument that the derivative called ``name`` is taken by."""
    by = name.split(maxsplit=1)[1]
    if by == COTANGENT:
        assert arguments.cotangent is not None
        return arguments.cotangent
    return arguments.inputs[by]
