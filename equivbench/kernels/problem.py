"""A case posed: two sets of inputs, in the stated layout, with the float64 answers that every
backend is held against, and what one call of a mode is."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.autograd import forward_ad

from equivbench.kernels.backend import Tensors, UnsupportedError
from equivbench.kernels.operations import Case
from equivbench.specs import MODES, Mode

Results = dict[str, Tensor | None]
"""``output``; from ``backward`` on ``gradient NAME``; in ``double_backward`` also ``second NAME``
and ``second cotangent``. None where autograd has none."""
COTANGENT = "cotangent"
TANGENT = "tangent"
"""The derivative of the output along directions of the inputs, in forward mode."""


@dataclass(frozen=True)
class Arguments:
    """What a call of a mode is given."""

    inputs: Tensors
    cotangent: Tensor | None = None
    """Of the output's shape: the gradient that arrives from above. Not needed by ``forward``."""
    directions: Tensors = field(default_factory=dict)
    """For each differentiable input, of its shape: the gradient that arrives at its gradient. For
    ``double_backward`` only."""

    def changed(self, change: Callable[[str, Tensor], Tensor]) -> Arguments:
        """With ``change(name, tensor)`` in place of each tensor."""
        return Arguments(
            {name: change(name, one) for name, one in self.inputs.items()},
            None if self.cotangent is None else change(COTANGENT, self.cotangent),
            {name: change(f"direction {name}", one) for name, one in self.directions.items()},
        )

    def named(self) -> dict[str, Tensor]:
        """All tensors by name."""
        found: dict[str, Tensor] = {}
        self.changed(found.setdefault)
        return found


def evaluate(
    run: Callable[[Tensors], Tensor],
    mode: Mode,
    arguments: Arguments,
    differentiable: Sequence[str],
) -> Results:
    """One call of ``run`` in ``mode``, by torch's autograd alone.

    The differentiable inputs, and in ``double_backward`` the cotangent, must require gradients. A
    derivative that autograd does not connect is None.
    """
    if mode == "forward":
        with torch.no_grad():
            return {"output": run(arguments.inputs)}
    output = run(arguments.inputs)
    by, cotangent = [arguments.inputs[name] for name in differentiable], arguments.cotangent
    assert cotangent is not None
    twice = mode == "double_backward"
    gradients: Sequence[Tensor | None] = [None] * len(by)
    if output.requires_grad:
        gradients = torch.autograd.grad(
            output, by, cotangent, create_graph=twice, allow_unused=True
        )
    results: Results = {"output": output}
    results |= dict(zip((f"gradient {name}" for name in differentiable), gradients, strict=True))
    if not twice:
        return results
    connected = [
        (gradient, arguments.directions[name])
        for name, gradient in zip(differentiable, gradients, strict=True)
        if gradient is not None and gradient.requires_grad
    ]
    seconds: Sequence[Tensor | None] = [None] * (len(by) + 1)
    if connected:
        targets, directions = zip(*connected, strict=True)
        seconds = torch.autograd.grad(targets, [*by, cotangent], directions, allow_unused=True)
    names = (f"second {name}" for name in (*differentiable, COTANGENT))
    return results | dict(zip(names, seconds, strict=True))


def along(run: Callable[[Tensors], Tensor], inputs: Tensors, directions: Tensors) -> Tensor | None:
    """The derivative of ``run`` at ``inputs`` along ``directions`` in forward mode; None where
    autograd has none."""
    with forward_ad.dual_level():
        moved = {
            name: forward_ad.make_dual(inputs[name].detach(), one)  # type: ignore[no-untyped-call]
            for name, one in directions.items()
        }
        output = run({**inputs, **moved})
        found: Tensor | None = forward_ad.unpack_dual(output).tangent  # type: ignore[no-untyped-call]
        return found


def results_of(mode: Mode, results: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of ``results`` that a call of ``mode`` gives."""
    kinds = ("output", "gradient", "second")[: MODES.index(mode) + 1]
    return {name: one for name, one in results.items() if name.partition(" ")[0] in kinds}


_SECOND_SEED = 1_000_003
"""Added to the seed for the second set of inputs and for what is drawn beside the inputs."""


@dataclass(frozen=True)
class Instance:
    """Arguments in the stated layout, in the dtype that is timed, and the float64 results for
    exactly these numbers."""

    arguments: Arguments
    answers: dict[str, Tensor]


@dataclass(frozen=True)
class Tangent:
    """Directions of the differentiable inputs of an instance, and the float64 derivative of the
    output along them."""

    directions: Tensors
    answer: Tensor


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

    @cached_property
    def tangent(self) -> Tangent:
        """Of the first instance."""
        inputs = self.instances[0].arguments.inputs
        by, reference = self.case.operation.differentiable, self.case.operation.reference
        directions = _drawn({name: inputs[name] for name in by}, 3 * _SECOND_SEED)
        exact = _exact(Arguments(inputs, directions=directions))
        found = along(lambda given: reference(**given), exact.inputs, exact.directions)
        if found is None:
            found = torch.zeros_like(reference(**exact.inputs))
        return Tangent(directions, found)


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
    second = _with_indices_of(
        first, make_inputs(case, dtype=dtype, device=device, seed=seed + _SECOND_SEED)
    )
    output: Sequence[int] = ()
    if mode != "forward":
        with torch.no_grad():
            output = case.operation.reference(**_exact(Arguments(first)).inputs).shape
    instances = []
    for inputs, drawn in ((first, seed), (second, seed + _SECOND_SEED)):
        arguments = _arguments(case, mode, inputs, output, drawn)
        instances.append(Instance(arguments, _answers(case, mode, arguments)))
    return KernelProblem(case, mode, dtype, device, (instances[0], instances[1]))


def mixed(first: Arguments, second: Arguments, share: float) -> Arguments:
    """``share`` of the numbers of ``first`` and the rest of those of ``second``, with the indices
    of ``first``."""
    others = second.named()
    return first.changed(
        lambda name, one: (
            share * one.detach() + (1 - share) * others[name].detach()
            if one.is_floating_point()
            else one
        )
    )


class Unseen:
    """Arguments for a call in ``mode``, mixed just now from the two instances of ``problem``, whose
    answers are computed when they are first asked for: a kernel that was called before can have
    them from nowhere."""

    def __init__(self, problem: KernelProblem, mode: Mode) -> None:
        self._case, self._mode = problem.case, mode
        self.share = 0.25 + secrets.randbelow(1 << 20) / (1 << 21)
        """Of the first instance."""
        first, second = (instance.arguments for instance in problem.instances)
        self._arguments = mixed(first, second, self.share)

    @cached_property
    def answers(self) -> dict[str, Tensor]:
        """The float64 results for exactly these numbers."""
        return _answers(self._case, self._mode, self._arguments)


def _with_indices_of(first: Tensors, drawn: Tensors) -> dict[str, Tensor]:
    # Networks use one set of neighbours in all layers: what a backend computes from indices once is
    # not computed each call.
    return {
        name: drawn[name] if tensor.is_floating_point() else tensor
        for name, tensor in first.items()
    }


def _arguments(
    case: Case, mode: Mode, inputs: dict[str, Tensor], output: Sequence[int], seed: int
) -> Arguments:
    """``inputs`` and what else ``mode`` takes, drawn by ``seed``; ``output`` is the output's
    shape."""
    if mode == "forward":
        return Arguments(inputs)
    by = case.operation.differentiable
    wanted = {COTANGENT: inputs[by[0]].new_empty(tuple(output))}
    if mode == "double_backward":
        wanted |= {name: inputs[name] for name in by}
    directions = _drawn(wanted, seed + 2 * _SECOND_SEED)
    return Arguments(inputs, directions.pop(COTANGENT), directions)


def _drawn(like: Tensors, seed: int) -> dict[str, Tensor]:
    """Normal numbers of the shape, dtype and device of each tensor of ``like``, one after the
    other."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(one.shape, generator=generator, dtype=torch.float64).to(one)
        for name, one in like.items()
    }


def _answers(case: Case, mode: Mode, arguments: Arguments) -> dict[str, Tensor]:
    by, function = case.operation.differentiable, case.operation.reference
    watched = () if mode == "forward" else (*by, *[COTANGENT] * (mode == "double_backward"))
    exact = _exact(arguments, watched)
    results = evaluate(lambda given: function(**given), mode, exact, by)
    named = exact.named()
    return {
        # A derivative is of the shape of what it is taken by.
        name: torch.zeros_like(named[name.partition(" ")[2]]) if one is None else one.detach()
        for name, one in results.items()
    }


def _exact(arguments: Arguments, watched: Sequence[str] = ()) -> Arguments:
    """In float64; the ``watched`` ones require gradients."""
    return arguments.changed(
        lambda name, one: (
            one.detach().double().requires_grad_(name in watched)
            if one.is_floating_point()
            else one
        )
    )
