"""The contract of a kernel backend, and how one is found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from equivbench.errors import EquivbenchError
from equivbench.kernels.operations import Operation
from equivbench.registry import KERNEL_BACKENDS, resolve

Tensors = Mapping[str, Tensor]


class UnsupportedError(EquivbenchError):
    """A backend does not do this operation (or not at this size, dtype or device); the message says
    why."""

    exit_code = 2


def unchanged(inputs: Tensors) -> Tensors:
    """The inputs as they are."""
    return inputs


def as_is(output: Tensor) -> Tensor:
    """The output as it is."""
    return output


@dataclass(frozen=True)
class Kernel:
    """An operation, ready to run.

    ``run`` takes the backend's own layout and is what is timed; ``adapt`` brings the stated inputs
    (:mod:`equivbench.kernels.operations`) into it and ``restore`` the output back. Both are linear
    in what is differentiated (reorderings, scalings) and off the clock: networks keep one layout
    throughout. ``restore(run(adapt(inputs)))`` is the operation.
    """

    run: Callable[[Tensors], Tensor]
    method: str
    """What really runs, such as ``inductor`` or ``cuequivariance uniform_1d``; a fallback is an
    error, never a method."""
    adapt: Callable[[Tensors], Tensors] = unchanged
    restore: Callable[[Tensor], Tensor] = as_is
    compiles: bool = False
    """Whether the first calls compile; they are timed apart."""
    max_derivatives: int = 2
    """How often it can be differentiated; more is not asked of it, and said to be unsupported."""

    def __call__(self, **inputs: Tensor) -> Tensor:
        """The operation on the stated inputs."""
        return self.restore(self.run(self.adapt(inputs)))


class Backend(Protocol):
    """A library, or code of ours, that provides some operations."""

    def missing(self, device: torch.device) -> str | None:
        """Why it cannot run on ``device`` here and how to get it, one sentence; None if it can."""
        ...

    def build(self, operation: Operation, *, dtype: torch.dtype, device: torch.device) -> Kernel:
        """``operation`` for inputs of ``dtype`` on ``device``.

        Raises ``UnsupportedError`` for what it does not do and ``FailedError`` where it would
        silently fall back to a slower path. Nothing is timed here; compilation may happen here or
        in the first calls (``Kernel.compiles``).
        """
        ...


def backend(name: str) -> Backend:
    """The registered backend ``name``; raises ``UsageError`` with the close matches."""
    return cast(Backend, resolve(KERNEL_BACKENDS.get(name).factory)())
