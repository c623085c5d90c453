"""Our own kernels: the convolution and PaiNN's message in one pass over the edges, in generated C++
on a CPU and in Triton on a GPU."""

from __future__ import annotations

import importlib.util
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from equivbench.kernels.backend import Kernel, TableBackend, Tensors
from equivbench.kernels.first_use import check_first_use
from equivbench.kernels.fused.coupling import EdgeOperation
from equivbench.kernels.fused.edge_operator import along_edges
from equivbench.kernels.fused.native import compiled, no_compiler
from equivbench.kernels.operations import Convolution, PaiNNMessage


def edge_kernel(operation: EdgeOperation, like: Tensor) -> Kernel:
    """Twice differentiable; on a CPU it is compiled here, and checked once a process."""
    if like.is_cuda:
        return _kernel(operation, "triton", checked=False)
    _compiled_and_checked(operation, like.dtype)
    return _kernel(operation, "generated C++", checked=True)


@lru_cache(maxsize=64)
def _compiled_and_checked(operation: EdgeOperation, dtype: torch.dtype) -> None:
    compiled(operation, dtype)
    kernel = _kernel(operation, "generated C++", checked=False)
    check_first_use(kernel, operation, "fused", torch.empty(0, dtype=dtype))


def _kernel(operation: EdgeOperation, method: str, *, checked: bool) -> Kernel:
    def run(inputs: Tensors) -> Tensor:
        x, weights, edge_index = (inputs[name] for name in ("x", "weights", "edge_index"))
        return along_edges(operation, x, _harmonics(inputs), weights, edge_index)

    return Kernel(run, method, compiles=True, checked=checked)


def _harmonics(inputs: Tensors) -> Tensor:
    """Those of a convolution; of PaiNN's message 1 and the direction."""
    if "harmonics" in inputs:
        return inputs["harmonics"]
    return functional.pad(inputs["directions"], (1, 0), value=1.0)


class Fused(TableBackend):
    """Convolutions and PaiNN's messages in float32 and float64."""

    name = "fused"
    kernels = ((Convolution, edge_kernel), (PaiNNMessage, edge_kernel))
    dtypes = (torch.float32, torch.float64)

    def missing(self, device: torch.device) -> str | None:
        """No C++ compiler for a CPU, no Triton for a GPU."""
        if device.type == "cuda" and importlib.util.find_spec("triton") is None:
            return "Triton is not installed: pip install triton"
        if device.type == "cpu":
            return no_compiler()
        return super().missing(device)
