"""Our own kernels: the convolution in one pass over the edges, in generated C++ on a CPU and in
Triton on a GPU."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from equivbench.errors import FailedError
from equivbench.kernels.backend import Kernel, Tensors, UnsupportedError
from equivbench.kernels.operations import Convolution, Operation


class Fused:
    """Convolutions in float32 and float64, twice differentiable."""

    def missing(self, device: torch.device) -> str | None:
        """No C++ compiler for a CPU, no Triton for a GPU."""
        if device.type == "cuda":
            return (
                None
                if importlib.util.find_spec("triton")
                else "Triton is not installed: pip install triton"
            )
        if device.type == "cpu":
            from equivbench.kernels.fused.native import no_compiler

            return no_compiler()
        return f"there is no fused kernel for {device.type}: run on cpu or cuda"

    def build(self, operation: Operation, *, dtype: torch.dtype, device: torch.device) -> Kernel:
        """The kernel, compiled; raises ``UnsupportedError`` for other operations and types,
        ``FailedError`` if it is missing."""
        if not isinstance(operation, Convolution):
            raise UnsupportedError(f"fused has no {operation.name}; it does convolution")
        if dtype not in (torch.float32, torch.float64):
            raise UnsupportedError(f"fused computes in float32 and float64, not in {dtype}")
        if (problem := self.missing(device)) is not None:
            raise FailedError(problem)
        from equivbench.kernels.fused.convolution import convolve

        if device.type == "cpu":
            from equivbench.kernels.fused.native_launch import compiled

            compiled(operation, dtype)

        def run(inputs: Tensors) -> Tensor:
            return convolve(
                operation, inputs["x"], inputs["harmonics"], inputs["weights"], inputs["edge_index"]
            )

        return Kernel(run, "generated C++" if device.type == "cpu" else "triton", compiles=True)
