"""Our own kernels: the convolution in one pass over the edges, in generated C++ on a CPU and in
Triton on a GPU."""

from __future__ import annotations

import importlib.util
from functools import lru_cache

import torch
from torch import Tensor

from equivbench.kernels.backend import Kernel, TableBackend, Tensors
from equivbench.kernels.first_use import check_first_use
from equivbench.kernels.fused.convolution import convolve
from equivbench.kernels.fused.native import compiled, no_compiler
from equivbench.kernels.operations import Convolution


def convolution(operation: Convolution, like: Tensor) -> Kernel:
    """Twice differentiable; on a CPU it is compiled here, and checked once a process."""
    if like.is_cuda:
        return _kernel(operation, "triton", checked=False)
    _compiled_and_checked(operation, like.dtype)
    return _kernel(operation, "generated C++", checked=True)


@lru_cache(maxsize=64)
def _compiled_and_checked(operation: Convolution, dtype: torch.dtype) -> None:
    compiled(operation, dtype)
    kernel = _kernel(operation, "generated C++", checked=False)
    check_first_use(kernel, operation, "fused", torch.empty(0, dtype=dtype))


def _kernel(operation: Convolution, method: str, *, checked: bool) -> Kernel:
    def run(inputs: Tensors) -> Tensor:
        return convolve(
            operation, inputs["x"], inputs["harmonics"], inputs["weights"], inputs["edge_index"]
        )

    return Kernel(run, method, compiles=True, checked=checked)


class Fused(TableBackend):
    """Convolutions in float32 and float64."""

    name = "fused"
    kernels = ((Convolution, convolution),)
    dtypes = (torch.float32, torch.float64)

    def missing(self, device: torch.device) -> str | None:
        """No C++ compiler for a CPU, no Triton for a GPU."""
        if device.type == "cuda" and importlib.util.find_spec("triton") is None:
            return "Triton is not installed: pip install triton"
        if device.type == "cpu":
            return no_compiler()
        return super().missing(device)
