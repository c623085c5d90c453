"""An operation as a module of a network, on a backend chosen by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from equivbench.errors import FailedError
from equivbench.kernels.backend import Kernel, backend
from equivbench.kernels.operations import Operation


class OnBackend(nn.Module):
    """``operation`` on the stated layout; it has no parameters.

    Networks are moved and turned to float64 after they are built, so kernels are made on the first call with a dtype and
    device, and neither copied nor saved with the module. Raises ``UsageError`` for an unknown backend; the first call raises
    ``FailedError`` where it is missing and ``UnsupportedError`` where it does not do the operation.
    """

    def __init__(self, operation: Operation, name: str) -> None:
        super().__init__()
        self.operation, self.name = operation, name
        self.backend = backend(name)
        self._kernels: dict[tuple[torch.dtype, torch.device], Kernel] = {}

    def forward(self, **inputs: Tensor) -> Tensor:
        """The operation's output; its docstring says what ``inputs`` are."""
        first = inputs[self.operation.differentiable[0]]
        key = first.dtype, first.device
        if key not in self._kernels:
            self._kernels[key] = self._build(*key)
        return self._kernels[key](**inputs)

    def _build(self, dtype: torch.dtype, device: torch.device) -> Kernel:
        reason = self.backend.missing(device)
        if reason is not None:
            raise FailedError(f"the kernel backend {self.name} cannot run on {device}: {reason}")
        return self.backend.build(self.operation, dtype=dtype, device=device)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kernels": {}}
