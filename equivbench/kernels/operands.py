"""A kernel's arguments in its own layout, in enough copies to pass the cache, and its results back
in the stated layout."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from equivbench.kernels.backend import Kernel, Tensors, as_is
from equivbench.kernels.checking import WrongKernelError, check, not_plain, poison
from equivbench.kernels.problem import COTANGENT, Arguments, KernelProblem, Results, evaluate
from equivbench.specs import MODES, Mode

_MOST_SLOTS = 4096
"""More copies than that cost more time to make than the smallest kernels take."""


class _Original:
    """One instance of the problem in the kernel's layout, and the way back."""

    def __init__(self, kernel: Kernel, problem: KernelProblem, mode: Mode, number: int) -> None:
        instance, self.kernel = problem.instances[number], kernel
        kinds = ("output", "gradient", "second")[: MODES.index(mode) + 1]
        self.answers = {
            name: one for name, one in instance.answers.items() if name.partition(" ")[0] in kinds
        }
        given = instance.arguments
        self.by = problem.case.operation.differentiable
        self.stated = {
            name: tensor.detach().requires_grad_(name in self.by)
            for name, tensor in given.inputs.items()
        }
        self.graph = kernel.adapt(self.stated)
        """The kernel's inputs, still connected to the stated ones."""
        self.differentiable = [name for name, one in self.graph.items() if one.requires_grad]
        inputs = {name: tensor.detach() for name, tensor in self.graph.items()}
        self.arguments = Arguments(inputs)
        if mode == "forward":
            return
        cotangent = given.cotangent
        if kernel.restore is not as_is:
            # The gradient by the kernel's output that comes of the stated one.
            watched = {
                name: one.clone().requires_grad_(name in self.differentiable)
                for name, one in inputs.items()
            }
            output = kernel.run(watched).detach().requires_grad_()
            cotangent = torch.autograd.grad(kernel.restore(output), output, cotangent)[0]
        turned: Tensors = {}
        if mode == "double_backward":
            turned = kernel.adapt({**given.inputs, **given.directions})
        directions = {name: turned[name].detach() for name in self.differentiable if turned}
        self.arguments = Arguments(inputs, cotangent, directions)

    def restored(self, results: Results) -> Results:
        """``results`` of the kernel as those of the operation."""
        for name, result in results.items():
            if result is not None and type(result) is not Tensor:
                raise not_plain(name, result)
        stated: Results = {
            name: None if result is None else self.kernel.restore(result.detach())
            for name, result in results.items()
            if name in ("output", f"second {COTANGENT}")
        }
        for kind in ("gradient", "second"):
            found = [(name, results.get(f"{kind} {name}")) for name in self.differentiable]
            # Derivatives by the kernel's inputs as derivatives by the stated ones.
            connected = [(self.graph[name], one.detach()) for name, one in found if one is not None]
            if connected:
                pulled = torch.autograd.grad(
                    [one for one, _ in connected],
                    [self.stated[name] for name in self.by],
                    [one for _, one in connected],
                    retain_graph=True,
                    allow_unused=True,
                )
                stated |= dict(zip((f"{kind} {name}" for name in self.by), pulled, strict=True))
        return stated


@dataclass
class Slot:
    """Memory of its own for one call's arguments; it holds one of the two originals."""

    arguments: Arguments
    holds: int


class Operands:
    """The arguments of calls of ``kernel``, in rotation.

    There are so many slots that between two visits of one all else has gone through the cache,
    ``cache`` bytes large. After a visit a slot is filled with the other instance: what was computed
    from the same memory before is then wrong. Indices and whatever else the two instances share is
    shared by all slots, as the layers of a network share it.
    """

    def __init__(self, kernel: Kernel, problem: KernelProblem, mode: Mode, cache: int) -> None:
        self.kernel, self.mode, self.dtype = kernel, mode, problem.dtype
        self._originals = tuple(_Original(kernel, problem, mode, number) for number in (0, 1))
        first, second = (original.arguments.named() for original in self._originals)
        self._common = {
            name: one.clone() for name, one in first.items() if torch.equal(one, second[name])
        }
        own = sum(one.nbytes for name, one in first.items() if name not in self._common)
        count = min(_MOST_SLOTS, max(2, -(-2 * cache // max(1, own))))
        self.slots = [self._slot(number % 2) for number in range(count)]
        self._order = itertools.cycle(self.slots)

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
        they are too large, and where the call has written into its arguments."""
        original = self._originals[slot.holds]
        errors = check(original.restored(results), original.answers, self.dtype)
        before = original.arguments.named()
        for name, tensor in slot.arguments.named().items():
            if not torch.equal(tensor, before[name]):
                raise WrongKernelError(f"it writes into its argument {name}")
        return errors

    def turn(self, slot: Slot, results: Results) -> None:
        """After a visit: poison ``results`` and fill ``slot`` with the other instance."""
        poison(results)
        slot.holds = 1 - slot.holds
        original = self._originals[slot.holds].arguments.named()
        with torch.no_grad():
            for name, tensor in slot.arguments.named().items():
                if name not in self._common:
                    tensor.copy_(original[name])

    def strided(self) -> Slot:
        """A slot that holds the first instance in memory with gaps: no tensor in it is
        contiguous."""
        return self._slot(0, gaps=True)

    def _slot(self, number: int, *, gaps: bool = False) -> Slot:
        original = self._originals[number]
        watched = [] if self.mode == "forward" else [*original.differentiable]
        if self.mode == "double_backward":
            watched.append(COTANGENT)

        def copied(name: str, one: Tensor) -> Tensor:
            if gaps:
                copy = one.new_empty((*one.shape, 2))[..., 0].copy_(one)
            elif name in self._common:
                return self._common[name]
            else:
                copy = one.clone()
            return copy.requires_grad_(name in watched)

        return Slot(original.arguments.changed(copied), number)
