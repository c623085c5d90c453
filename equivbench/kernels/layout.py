"""A kernel's own layout: arguments into it, results back out of it, and nothing else on the way."""

from __future__ import annotations

import torch
from torch import Tensor

from equivbench.kernels.backend import Kernel, Tensors, as_is
from equivbench.kernels.checking import WrongKernelError, plain
from equivbench.kernels.problem import COTANGENT, Arguments, KernelProblem, Results
from equivbench.specs import Mode

_LINEAR = 0.05
"""Relative error of a sum that rounding explains in every dtype; what is not linear is off by about
the whole."""


class KernelLayout:
    """The layout of ``kernel`` for calls in ``mode``, from the first instance of ``problem``.

    ``adapt`` and ``restore`` are off the clock. Raises ``WrongKernelError`` where they do more than
    bring numbers into another order and scale them, that is, where they are not linear.
    """

    def __init__(self, kernel: Kernel, problem: KernelProblem, mode: Mode) -> None:
        self.kernel, self._mode = kernel, mode
        self._by = problem.case.operation.differentiable
        first = problem.instances[0].arguments.inputs
        self._stated = {
            name: one.detach().requires_grad_(name in self._by) for name, one in first.items()
        }
        self._graph = kernel.adapt(self._stated)
        """The kernel's inputs, still connected to the stated ones: being linear, the connection is
        the same for all numbers."""
        self.differentiable = [name for name, one in self._graph.items() if one.requires_grad]
        self._output = None if kernel.restore is as_is else self._some_output()
        self._check_adapt(problem)
        self._check_restore()

    def adapted(self, given: Arguments) -> Arguments:
        """``given`` arguments as the kernel takes them."""
        inputs = self._inputs(given.inputs)
        if self._mode == "forward":
            return Arguments(inputs)
        cotangent = given.cotangent
        if self._output is not None:
            # The gradient by the kernel's output that comes of the stated one.
            output = self._output.clone().requires_grad_()
            cotangent = torch.autograd.grad(self.kernel.restore(output), output, cotangent)[0]
        turned = self._inputs({**given.inputs, **given.directions}) if given.directions else {}
        directions = {name: turned[name] for name in self.differentiable if turned}
        return Arguments(inputs, cotangent, directions)

    def restored(self, results: Results) -> Results:
        """``results`` of the kernel as those of the operation."""
        found = {name: None if one is None else plain(name, one) for name, one in results.items()}
        stated: Results = {
            name: None if one is None else self.kernel.restore(one)
            for name, one in found.items()
            if name in ("output", f"second {COTANGENT}")
        }
        for kind in ("gradient", "second"):
            parts = [(name, found.get(f"{kind} {name}")) for name in self.differentiable]
            # Derivatives by the kernel's inputs as derivatives by the stated ones.
            connected = [(self._graph[name], one) for name, one in parts if one is not None]
            if connected:
                pulled = torch.autograd.grad(
                    [one for one, _ in connected],
                    [self._stated[name] for name in self._by],
                    [one for _, one in connected],
                    retain_graph=True,
                    allow_unused=True,
                )
                stated |= dict(zip((f"{kind} {name}" for name in self._by), pulled, strict=True))
        return stated

    def _inputs(self, given: Tensors) -> dict[str, Tensor]:
        with torch.no_grad():
            return {name: one.detach() for name, one in self.kernel.adapt(given).items()}

    def _some_output(self) -> Tensor:
        """An output of the kernel, recorded as it is in its mode: what compiles is compiled for one
        of both."""
        watched = self._mode != "forward"
        inputs = {
            name: one.detach().clone().requires_grad_(watched and name in self.differentiable)
            for name, one in self._graph.items()
        }
        with torch.set_grad_enabled(watched):
            return plain("output", self.kernel.run(inputs))

    def _check_adapt(self, problem: KernelProblem) -> None:
        if self.kernel.adapt is as_is:
            return
        first, second = (instance.arguments.inputs for instance in problem.instances)
        both = {
            name: one + second[name] if one.is_floating_point() else one
            for name, one in first.items()
        }
        one, other, sums = (self._inputs(each) for each in (first, second, both))
        for name, found in sums.items():
            _check_sum(f"adapt's {name}", one[name], other[name], found)

    def _check_restore(self) -> None:
        like = self._output
        if like is None or not like.is_floating_point():
            return
        generator = torch.Generator().manual_seed(0)
        one, other = (torch.randn(like.shape, generator=generator).to(like) for _ in range(2))
        with torch.no_grad():
            restored = [self.kernel.restore(each) for each in (one, other, one + other)]
        _check_sum("restore's output", *restored)


def _check_sum(name: str, first: Tensor, second: Tensor, both: Tensor) -> None:
    if first.is_floating_point():
        wanted = first.double() + second.double()
        right = float((both.double() - wanted).norm()) <= _LINEAR * float(wanted.norm())
    else:
        right = torch.equal(first, second) and torch.equal(first, both)
    if not right:
        raise WrongKernelError(
            f"{name} is not linear: adapt and restore are off the clock, and may bring numbers into"
            " another order and scale them, no more"
        )
