"""Our own kernels: the convolution in one pass over the edges, in generated C++ on a CPU and in
Triton on a GPU."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from equivbench.kernels.backend import Kernel, TableBackend, Tensors
from equivbench.kernels.fused.convolution import convolve
from equivbench.kernels.fused.native import compiled, no_compiler
from equivbench.kernels.operations import Convolution


def convolution(operation: Convolution, like: Tensor) -> Kernel:
    """Twice differentiable; on a CPU it is compiled here."""
    if not like.is_cuda:
        compiled(operation, like.dtype)

    def run(inputs: Tensors) -> Tensor:
        return convolve(
            operation, inputs["x"], inputs["harmonics"], inputs["weights"], inputs["edge_index"]
        )

    return Kernel(run, "triton" if like.is_cuda else "generated C++", compiles=True)


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
