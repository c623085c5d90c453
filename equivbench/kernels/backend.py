"""The contract of a kernel backend, how one is found, and an operation on one as a module of a
network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from equivbench.errors import EquivbenchError, FailedError
from equivbench.kernels.backends import absent, does_not_do
from equivbench.kernels.operations import Operation
from equivbench.registry import KERNEL_BACKENDS, resolve

Tensors = Mapping[str, Tensor]


class UnsupportedError(EquivbenchError):
    """A backend does not do this operation (or not at this size, dtype or device); the message says
    why."""

    exit_code = 2


def as_is(given: Any) -> Any:
    """Inputs or an output in a layout that is the stated one."""
    return given


@dataclass(frozen=True)
class Kernel:
    """An operation, ready to run.

    ``run`` takes the backend's own layout and is what is timed; ``adapt`` brings the stated inputs
    (:mod:`equivbench.kernels.operations`) into it and ``restore`` the output back. Both are linear
    in all floating-point numbers (reorderings, scalings; a time is refused where they are not) and
    off the clock: networks keep one layout throughout. ``restore(run(adapt(inputs)))`` is the
    operation.
    """

    run: Callable[[Tensors], Tensor]
    method: str
    """What really runs, such as ``inductor`` or ``cuequivariance uniform_1d``; a fallback is an
    error, never a method."""
    adapt: Callable[[Tensors], Tensors] = as_is
    restore: Callable[[Tensor], Tensor] = as_is
    compiles: bool = False
    """Whether the first calls compile; they are timed apart."""
    max_derivatives: int = 2
    """How often it can be differentiated; more is not asked of it, and said to be unsupported."""
    checked: bool = False
    """Whether it was held against the reference as it was built, so that no run need do it."""

    def __call__(self, **inputs: Tensor) -> Tensor:
        """The operation on the stated inputs."""
        return self.restore(self.run(self.adapt(inputs)))


@runtime_checkable
class Backend(Protocol):
    """A library, or code of ours, that provides some operations."""

    def missing(self, device: torch.device) -> str | None:
        """Say why it cannot run here and how to get it.

        Parameters
        ----------
        device
            Where it is to run.

        Returns
        -------
        str or None
            One sentence; None if nothing is missing.
        """
        ...

    def build(self, operation: Operation, *, dtype: torch.dtype, device: torch.device) -> Kernel:
        """Make the kernel of an operation. Nothing is timed here.

        Parameters
        ----------
        operation
            What is to be computed, in the layout that its docstring states.
        dtype, device
            Of the inputs that will come.

        Returns
        -------
        Kernel
            Compilation may have happened here or may come in its first calls
            (``Kernel.compiles``).

        Raises
        ------
        UnsupportedError
            The backend does not do the operation, or not at this size, dtype or device.
        FailedError
            It would silently fall back to a slower path.
        """
        ...


class TableBackend:
    """A backend of ours as a table; ``missing`` is what its declaration says, and what it adds."""

    name: ClassVar[str]
    """What it is registered as."""
    kernels: ClassVar[tuple[tuple[type[Operation], Callable[..., Kernel]], ...]]
    """The class of each operation, and what makes its kernel (or refuses to) of the operation and
    an empty tensor like the inputs that will come."""
    dtypes: ClassVar[tuple[torch.dtype, ...]] = ()
    """Those that it computes in; none: all."""

    def missing(self, device: torch.device) -> str | None:
        """What it needs, or another device."""
        return absent(KERNEL_BACKENDS.get(self.name), str(device))

    def build(self, operation: Operation, *, dtype: torch.dtype, device: torch.device) -> Kernel:
        """The kernel by the table; raises ``FailedError`` where the backend is missing."""
        make = dict(self.kernels).get(type(operation))
        if make is None:
            raise UnsupportedError(does_not_do(self.name, operation.name))
        if self.dtypes and dtype not in self.dtypes:
            known = " and ".join(str(one).removeprefix("torch.") for one in self.dtypes)
            raise UnsupportedError(f"{self.name} computes in {known}, not in {dtype}")
        if (reason := self.missing(device)) is not None:
            raise FailedError(reason)
        return make(operation, torch.empty(0, dtype=dtype, device=device))


def backend(name: str) -> Backend:
    """The registered backend ``name``; raises ``UsageError`` with the close matches."""
    return cast(Backend, resolve(KERNEL_BACKENDS.get(name).factory)())


_TARGET: ContextVar[torch.device | None] = ContextVar("target", default=None)


@contextmanager
def built_for(device: torch.device) -> Iterator[None]:
    """Networks that are made inside the block are moved to ``device`` before they are used, so that
    their kernels are built for it and for nothing else."""
    # With the number that a tensor's device has.
    token = _TARGET.set(torch.empty(0, device=device).device)
    try:
        yield
    finally:
        _TARGET.reset(token)


class OnBackend(nn.Module):
    """``operation`` on the stated layout; it has no parameters.

    Its kernel is built here and again where the module is moved or turned to another dtype, never
    while torch.compile traces; kernels are not copied or saved with the module. On a device that
    the backend is not for nothing is built: a network is made on a CPU and then moved. Raises
    ``UsageError`` for an unknown backend, ``FailedError`` where it is missing and
    ``UnsupportedError`` where it does not do the operation.
    """

    _like: Tensor
    """Empty: moved with the network's tensors, it tells their dtype and device."""

    def __init__(self, operation: Operation, name: str) -> None:
        super().__init__()
        self.operation, self.name = operation, name
        self.backend = backend(name)
        self._kernels: dict[tuple[torch.dtype, torch.device], Kernel] = {}
        self.register_buffer("_like", torch.empty(0), persistent=False)
        self.prepare(device=_TARGET.get())

    def forward(self, **inputs: Tensor) -> Tensor:
        """The operation's output; its docstring says what ``inputs`` are."""
        return self.kernel(**inputs)

    @property
    def kernel(self) -> Kernel:
        """The kernel for the module's dtype and device; raises ``FailedError`` where the backend is
        not for that device."""
        key = self._like.dtype, self._like.device
        if key not in self._kernels:
            raise self._cannot_run(self._like.device)
        return self._kernels[key]

    @property
    def compiles(self) -> bool:
        """Whether its kernels compile, as they are built or in their first calls."""
        return any(kernel.compiles for kernel in self._kernels.values())

    def prepare(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> None:
        """Build the kernel for ``dtype`` and ``device``, by default the module's own, where that is
        still to do: what compiles does so here. Raises as the constructor."""
        dtype, device = key = dtype or self._like.dtype, device or self._like.device
        spec = KERNEL_BACKENDS.get(self.name)
        if key in self._kernels or (device.type not in spec.devices and absent(spec) is None):
            return
        if absent(spec, str(device)) is not None or self.backend.missing(device) is not None:
            raise self._cannot_run(device)
        self._kernels[key] = self.backend.build(self.operation, dtype=dtype, device=device)

    def _cannot_run(self, device: torch.device) -> FailedError:
        reason = absent(KERNEL_BACKENDS.get(self.name), str(device)) or self.backend.missing(device)
        return FailedError(f"the kernel backend {self.name} cannot run on {device}: {reason}")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> OnBackend:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.prepare()
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kernels": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.prepare()
