"""An operation as a module of a network, on a backend chosen by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from equivbench.errors import FailedError
from equivbench.kernels.backend import Kernel, backend
from equivbench.kernels.operations import Operation


class OnBackend(nn.Module):
    """``operation`` on the stated layout; it has no parameters.

    Its kernel is built here and again where the module is moved or turned to another dtype, never
    while torch.compile traces; kernels are not copied or saved with the module. Raises
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
        self._prepare()

    def forward(self, **inputs: Tensor) -> Tensor:
        """The operation's output; its docstring says what ``inputs`` are."""
        return self._kernels[self._like.dtype, self._like.device](**inputs)

    def _prepare(self) -> None:
        dtype, device = key = self._like.dtype, self._like.device
        if key in self._kernels:
            return
        reason = self.backend.missing(device)
        if reason is not None:
            raise FailedError(f"the kernel backend {self.name} cannot run on {device}: {reason}")
        self._kernels[key] = self.backend.build(self.operation, dtype=dtype, device=device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> OnBackend:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._prepare()
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kernels": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._prepare()
