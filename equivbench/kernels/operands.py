"""A kernel's arguments in its own layout, in enough copies to pass the cache, and its results back
in the stated layout."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from equivbench.kernels.backend import Kernel, as_is, unchanged
from equivbench.kernels.checking import WrongKernelError, check, not_plain, poison
from equivbench.kernels.problem import (
    COTANGENT,
    Arguments,
    KernelProblem,
    Results,
    evaluate,
    names,
)
from equivbench.records.line_files import Mode

_MOST_SLOTS = 4096
"""More copies than that cost more time to make than the smallest kernels take."""


class _Original:
    """One instance of the problem in the kernel's layout, and the way back."""

    def __init__(self, kernel: Kernel, problem: KernelProblem, mode: Mode, number: int) -> None:
        self.instance = problem.instances[number]
        self.kernel = kernel
        given = self.instance.arguments
        by = problem.case.operation.differentiable
        self.stated = {
            name: tensor.detach().requires_grad_(name in by)
            for name, tensor in given.inputs.items()
        }
        self.graph = kernel.adapt(self.stated)
        """The kernel's inputs, still connected to the stated ones."""
        self.by = by
        self.differentiable = tuple(
            name for name, tensor in self.graph.items() if tensor.requires_grad
        )
        inputs = {name: tensor.detach() for name, tensor in self.graph.items()}
        cotangent, directions = given.cotangent, None
        if mode != "forward" and kernel.restore is not as_is:
            cotangent = self._adapted_cotangent(inputs)
        if mode == "double_backward":
            assert given.directions is not None
            turned = kernel.adapt({**given.inputs, **given.directions})
            directions = {name: turned[name].detach() for name in self.differentiable}
        self.arguments = Arguments(inputs, None if mode == "forward" else cotangent, directions)

    def _adapted_cotangent(self, inputs: dict[str, Tensor]) -> Tensor:
        """The gradient by the kernel's output that comes of the stated one by ``restore``."""
        watched = {
            name: tensor.clone().requires_grad_(name in self.differentiable)
            for name, tensor in inputs.items()
        }
        output = self.kernel.run(watched).detach().requires_grad_()
        return torch.autograd.grad(
            self.kernel.restore(output), output, self.instance.arguments.cotangent
        )[0]

    def restored(self, results: Results) -> Results:
        """``results`` of the kernel as those of the operation."""
        for name, result in results.items():
            if result is not None and type(result) is not Tensor:
                raise not_plain(name, result)
        output = results["output"]
        assert output is not None
        stated: Results = {"output": self.kernel.restore(output.detach())}
        if len(results) > 1:
            stated |= self._pulled_back(results, "gradient")
        if f"second {COTANGENT}" in results:
            stated |= self._pulled_back(results, "second")
            by_cotangent = results[f"second {COTANGENT}"]
            stated[f"second {COTANGENT}"] = (
                None if by_cotangent is None else self.kernel.restore(by_cotangent.detach())
            )
        return stated

    def _pulled_back(self, results: Results, kind: str) -> Results:
        """Derivatives by the kernel's inputs as derivatives by the stated ones."""
        found = {name: results[f"{kind} {name}"] for name in self.differentiable}
        if self.kernel.adapt is unchanged:
            return {f"{kind} {name}": result for name, result in found.items()}
        connected = [
            (self.graph[name], result.detach())
            for name, result in found.items()
            if result is not None
        ]
        if not connected:
            return {f"{kind} {name}": None for name in self.by}
        targets, gradients = zip(*connected, strict=True)
        stated = [self.stated[name] for name in self.by]
        pulled = torch.autograd.grad(
            targets, stated, gradients, retain_graph=True, allow_unused=True
        )
        return {f"{kind} {name}": result for name, result in zip(self.by, pulled, strict=True)}


class Slot:
    """Memory of its own for one call's arguments; it holds one of the two originals."""

    def __init__(self, arguments: Arguments, holds: int) -> None:
        self.arguments = arguments
        self.holds = holds


class Operands:
    """The arguments of calls of ``kernel``, in rotation.

    There are so many slots that between two visits of one all else has gone through the cache,
    ``cache`` bytes large. After a visit a slot is filled with the other instance: what was computed
    from the same memory before is then wrong. Indices and whatever else the two instances share is
    shared by all slots, as the layers of a network share it.
    """

    def __init__(self, kernel: Kernel, problem: KernelProblem, mode: Mode, cache: int) -> None:
        self.kernel, self.mode, self.problem = kernel, mode, problem
        self._originals = (_Original(kernel, problem, mode, 0), _Original(kernel, problem, mode, 1))
        first, second = (_named(original.arguments) for original in self._originals)
        self._shared = frozenset(name for name in first if torch.equal(first[name], second[name]))
        own = sum(
            tensor.numel() * tensor.element_size()
            for name, tensor in first.items()
            if name not in self._shared
        )
        count = min(_MOST_SLOTS, max(2, -(-2 * cache // max(1, own))))
        common = {name: first[name].clone() for name in self._shared}
        self.slots = [Slot(self._copy(number % 2, common), number % 2) for number in range(count)]
        self._order = itertools.cycle(self.slots)
        self.expected = names(problem.case, mode)

    def take(self, count: int) -> list[Slot]:
        """The next slots of the rotation, each at most once."""
        return list(itertools.islice(self._order, min(count, len(self.slots))))

    def call(self, slot: Slot) -> Results:
        """One call of the kernel on ``slot``."""
        return evaluate(
            self.kernel.run, self.mode, slot.arguments, self._originals[0].differentiable
        )

    def check(self, slot: Slot, results: Results) -> dict[str, float]:
        """Relative errors of ``results`` of a call on ``slot``; raises ``WrongKernelError`` where
        they are too large."""
        original = self._originals[slot.holds]
        answers = {name: original.instance.answers[name] for name in self.expected}
        return check(original.restored(results), answers, self.problem.dtype)

    def check_untouched(self, slot: Slot) -> None:
        """Raises ``WrongKernelError`` if a call has written into its arguments."""
        original = _named(self._originals[slot.holds].arguments)
        for name, tensor in _named(slot.arguments).items():
            if not torch.equal(tensor, original[name]):
                raise WrongKernelError(f"it writes into its argument {name}")

    def turn(self, slot: Slot, results: Results | None = None) -> None:
        """After a visit: poison ``results`` and fill ``slot`` with the other instance."""
        if results is not None:
            poison(results)
        slot.holds = 1 - slot.holds
        original = _named(self._originals[slot.holds].arguments)
        with torch.no_grad():
            for name, tensor in _named(slot.arguments).items():
                if name not in self._shared:
                    tensor.copy_(original[name])

    def strided(self) -> Slot:
        """A slot that holds the first instance in memory with gaps: no tensor in it is
        contiguous."""
        return Slot(self._copy(0, {}, _with_gaps), 0)

    def _copy(
        self,
        number: int,
        common: dict[str, Tensor],
        clone: Callable[[Tensor], Tensor] = torch.clone,
    ) -> Arguments:
        original = self._originals[number]
        gradients = self.mode != "forward"

        def copied(name: str, tensor: Tensor, differentiable: bool) -> Tensor:
            return (
                common[name]
                if name in common
                else clone(tensor).requires_grad_(differentiable and gradients)
            )

        given = original.arguments
        return Arguments(
            {
                name: copied(name, tensor, name in original.differentiable)
                for name, tensor in given.inputs.items()
            },
            None
            if given.cotangent is None
            else copied(COTANGENT, given.cotangent, self.mode == "double_backward"),
            None
            if given.directions is None
            else {
                name: copied(f"direction {name}", tensor, False)
                for name, tensor in given.directions.items()
            },
        )


def _named(arguments: Arguments) -> dict[str, Tensor]:
    """All tensors of ``arguments`` by name."""
    found = dict(arguments.inputs)
    if arguments.cotangent is not None:
        found[COTANGENT] = arguments.cotangent
    return found | {
        f"direction {name}": tensor for name, tensor in (arguments.directions or {}).items()
    }


def _with_gaps(tensor: Tensor) -> Tensor:
    """A copy of ``tensor`` whose numbers lie two apart."""
    return tensor.new_empty((*tensor.shape, 2))[..., 0].copy_(tensor)
