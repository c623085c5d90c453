"""The ``torch`` backend: every operation in plain torch, as our networks run it by default."""

from __future__ import annotations

from functools import singledispatch

import torch

from equivbench.kernels.backend import Kernel, UnsupportedError
from equivbench.kernels.backends.plain_convolution import convolution
from equivbench.kernels.operations import Convolution, Operation


class PlainTorch:
    """Runs wherever torch does."""

    def missing(self, device: torch.device) -> str | None:
        """Never missing."""
        return None

    def build(self, operation: Operation, *, dtype: torch.dtype, device: torch.device) -> Kernel:
        """``operation`` in plain torch; raises ``UnsupportedError`` for one it does not know, such as a plug-in's."""
        return _build(operation, dtype=dtype, device=device)


@singledispatch
def _build(operation: Operation, *, dtype: torch.dtype, device: torch.device) -> Kernel:
    raise UnsupportedError(f"backend 'torch' does not do {operation.name!r}; choose another backend with --backend")


_build.register(Convolution, convolution)
