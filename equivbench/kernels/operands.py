"""A kernel's arguments in enough copies to pass the cache, with numbers that no call has seen."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from equivbench.kernels.backend import Kernel
from equivbench.kernels.checking import WrongKernelError, check, poison
from equivbench.kernels.layout import KernelLayout
from equivbench.kernels.problem import (
    COTANGENT,
    Arguments,
    KernelProblem,
    Results,
    Unseen,
    evaluate,
    mixed,
    results_of,
)
from equivbench.specs import Mode

_MOST_SLOTS = 4096
"""More copies than that cost more time to make than the smallest kernels take."""
_SPREAD = 1 / 16
"""How far numbers that no call has seen are from those of an instance, row by row, at most: far
more than any tolerance, and little enough for the work to be the same."""

Slot = Arguments
"""Memory of its own for one call's arguments."""


class Footprint(NamedTuple):
    """Bytes that calls in rotation touch beside their results."""

    fresh: int
    """Arguments of one call that no other call of the rotation is given."""
    shared: int
    """Arguments that all calls are given."""
    rotation: int
    """All arguments that are passed through before one is met again."""


class Operands:
    """The arguments of calls of ``kernel``, in rotation.

    There are so many slots that between two visits of one all else has gone through the cache,
    ``cache`` bytes large. After a visit a slot is filled with numbers that no call has seen, so
    that nothing computed before is right for them. Indices and whatever else the two instances
    share is shared by all slots, as the layers of a network share it. Raises as
    :class:`KernelLayout`.
    """

    def __init__(self, kernel: Kernel, problem: KernelProblem, mode: Mode, cache: int) -> None:
        self.kernel, self.mode, self.dtype = kernel, mode, problem.dtype
        self._layout = KernelLayout(kernel, problem, mode)
        first, second = (self._layout.adapted(each.arguments) for each in problem.instances)
        self.instances = (first, second)
        """The problem's, in the kernel's layout."""
        self.answers = tuple(results_of(mode, each.answers) for each in problem.instances)
        """The float64 results of each."""
        ours, theirs = first.named(), second.named()
        self._common = {
            name: one.clone() for name, one in ours.items() if torch.equal(one, theirs[name])
        }
        own = sum(one.nbytes for name, one in ours.items() if name not in self._common)
        count = min(_MOST_SLOTS, max(2, -(-2 * cache // max(1, own))))
        shared = sum(one.nbytes for one in self._common.values())
        self.footprint = Footprint(own, shared, own * count + shared)
        """What lies between two visits of a slot."""
        self.slots = [self._slot(self.instances[number % 2]) for number in range(count)]
        self._order = itertools.cycle(self.slots)
        self._turns = itertools.cycle(self.instances)
        # Nobody can have the numbers before, not from a file of an earlier process either.
        self._generator = torch.Generator().manual_seed(secrets.randbits(63))

    def take(self, count: int) -> list[Slot]:
        """The next slots of the rotation, each at most once."""
        return list(itertools.islice(self._order, min(count, len(self.slots))))

    def call(self, slot: Slot) -> Results:
        """One call of the kernel on ``slot``."""
        return evaluate(self.kernel.run, self.mode, slot, self._layout.differentiable)

    def check(
        self, slot: Slot, given: Arguments, results: Results, answers: Mapping[str, Tensor]
    ) -> dict[str, float]:
        """Relative errors of ``results`` of a call on ``slot``, which held ``given``; raises
        ``WrongKernelError`` where they are too large, and where the call has written into its
        arguments."""
        errors = check(self._layout.restored(results), answers, self.dtype)
        before = given.named()
        for name, tensor in slot.named().items():
            if not torch.equal(tensor, before[name]):
                raise WrongKernelError(f"it writes into its argument {name}")
        return errors

    def unseen(self, unseen: Unseen) -> Arguments:
        """``unseen`` in the kernel's layout, made without the kernel, which sees it in the call
        only."""
        return mixed(*self.instances, unseen.share)

    def hold(self, slot: Slot, given: Arguments) -> None:
        """Fill ``slot`` with the numbers of ``given``."""
        numbers = given.named()
        with torch.no_grad():
            for name, tensor in slot.named().items():
                if name not in self._common:
                    tensor.copy_(numbers[name])

    def turn(self, slot: Slot, results: Results) -> None:
        """After a visit: poison ``results`` and fill ``slot`` with numbers that no call has
        seen."""
        poison(results)
        numbers = next(self._turns).named()
        with torch.no_grad():
            for name, tensor in slot.named().items():
                if name in self._common:
                    continue
                rows = (*tensor.shape[:1], *[1] * (tensor.ndim - 1))
                drawn = 2 * torch.rand(rows, generator=self._generator) - 1
                torch.mul(numbers[name], (1 + _SPREAD * drawn).to(tensor), out=tensor)

    def strided(self) -> Slot:
        """A slot that holds the first instance in memory with gaps: no tensor in it is
        contiguous."""
        return self._slot(self.instances[0], gaps=True)

    def _slot(self, given: Arguments, *, gaps: bool = False) -> Slot:
        watched = [] if self.mode == "forward" else [*self._layout.differentiable]
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

        return given.changed(copied)
