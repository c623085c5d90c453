"""Our own kernels in generated code, in C++ on a CPU and in Triton on a GPU: the convolution and
PaiNN's message in one pass over the edges, the symmetric contraction, Allegro's edge product, and
what lies around the products with weights of SO(2) convolutions."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from equivbench.kernels.backend import Kernel, TableBackend, Tensors, UnsupportedError
from equivbench.kernels.backends.plain import so2
from equivbench.kernels.backends.plain.wigner import WignerToAxis
from equivbench.kernels.first_use import check_first_use
from equivbench.kernels.fused.contraction_operator import CORRELATION, contracted
from equivbench.kernels.fused.coupling import EdgeOperation
from equivbench.kernels.fused.edge_operator import along_edges
from equivbench.kernels.fused.frames_operator import into_frames, turned_back
from equivbench.kernels.fused.native import compiled, no_compiler
from equivbench.kernels.fused.native_contraction import compiled_contraction
from equivbench.kernels.fused.native_frames import compiled_turn
from equivbench.kernels.fused.native_product import compiled_product
from equivbench.kernels.fused.product_operator import edge_product
from equivbench.kernels.operations import (
    Convolution,
    EdgeProduct,
    Operation,
    PaiNNMessage,
    SO2Convolution,
    SO2Message,
    SymmetricContraction,
)
from equivbench.kernels.operations.edge_frames import FrameTurn


def fused_kernel(operation: Operation, like: Tensor) -> Kernel:
    """Twice differentiable; on a CPU it is compiled here, and checked once a process."""
    if like.is_cuda:
        return _kernel(operation, like, "triton", checked=False)
    _compiled_and_checked(operation, like.dtype)
    return _kernel(operation, like, "generated C++", checked=True)


def contraction_kernel(operation: SymmetricContraction, like: Tensor) -> Kernel:
    """The same, of up to three factors."""
    if operation.correlation > CORRELATION:
        raise UnsupportedError(
            f"fused has the {operation.name} of up to {CORRELATION} factors, not of"
            f" {operation.correlation}; choose torch, e3nn or cuequivariance"
        )
    return fused_kernel(operation, like)


@lru_cache(maxsize=64)
def _compiled_and_checked(operation: Operation, dtype: torch.dtype) -> None:
    compile_native, _ = _KINDS[type(operation)]
    compile_native(operation, dtype)
    like = torch.empty(0, dtype=dtype)
    kernel = _kernel(operation, like, "generated C++", checked=False)
    check_first_use(kernel, operation, "fused", like)


def _kernel(operation: Operation, like: Tensor, method: str, *, checked: bool) -> Kernel:
    _, run_of = _KINDS[type(operation)]
    return Kernel(run_of(operation, like), method, compiles=True, checked=checked)


def _along_edges(operation: EdgeOperation, like: Tensor) -> Callable[[Tensors], Tensor]:
    def run(inputs: Tensors) -> Tensor:
        x, weights, edge_index = (inputs[name] for name in ("x", "weights", "edge_index"))
        return along_edges(operation, x, _harmonics(inputs), weights, edge_index)

    return run


def _harmonics(inputs: Tensors) -> Tensor:
    """Those of a convolution; of PaiNN's message 1 and the direction."""
    if "harmonics" in inputs:
        return inputs["harmonics"]
    return functional.pad(inputs["directions"], (1, 0), value=1.0)


def _contracted(operation: SymmetricContraction, like: Tensor) -> Callable[[Tensors], Tensor]:
    def run(inputs: Tensors) -> Tensor:
        return contracted(operation, inputs["x"], inputs["weights"], inputs["elements"])

    return run


def _edge_product(operation: EdgeProduct, like: Tensor) -> Callable[[Tensors], Tensor]:
    names = ("x", "harmonics", "environment", "weights", "edge_index")

    def run(inputs: Tensors) -> Tensor:
        return edge_product(operation, *(inputs[name] for name in names))

    return run


def _convolved(operation: SO2Convolution, like: Tensor) -> Callable[[Tensors], Tensor]:
    wigner = WignerToAxis(operation.lmax, operation.mmax).to(like)
    into, back = partial(into_frames, operation.into), _back(operation.back)
    return so2.convolved(operation, wigner, into, back)


def _passed(operation: SO2Message, like: Tensor) -> Callable[[Tensors], Tensor]:
    into, back = partial(into_frames, operation.into), _back(operation.back)
    return so2.passed(operation, lambda frames: frames, into, back)


def _back(turn: FrameTurn) -> so2.Back:
    def back(
        frames: Tensor, z: Tensor, scales: Tensor | None, edge_index: Tensor, nodes: int
    ) -> Tensor:
        scales = z.new_ones(z.shape[0], 1) if scales is None else scales
        return turned_back(turn, frames, scales, z, edge_index, nodes)

    return back


def _compiled_turns(operation: SO2Convolution | SO2Message, dtype: torch.dtype) -> None:
    compiled_turn(operation.into, False, dtype)
    compiled_turn(operation.back, True, dtype)


_KINDS: dict[
    type[Operation], tuple[Callable[..., Any], Callable[..., Callable[[Tensors], Tensor]]]
] = {
    Convolution: (compiled, _along_edges),
    PaiNNMessage: (compiled, _along_edges),
    SymmetricContraction: (compiled_contraction, _contracted),
    EdgeProduct: (compiled_product, _edge_product),
    SO2Convolution: (_compiled_turns, _convolved),
    SO2Message: (_compiled_turns, _passed),
}
"""What compiles the C++ of an operation of each kind, and what makes the function that calls it."""


class Fused(TableBackend):
    """Convolutions, messages, symmetric contractions and edge products in float32 and float64; of
    SO(2) convolutions all but the products with weights."""

    name = "fused"
    kernels = (
        (Convolution, fused_kernel),
        (PaiNNMessage, fused_kernel),
        (SymmetricContraction, contraction_kernel),
        (EdgeProduct, fused_kernel),
        (SO2Convolution, fused_kernel),
        (SO2Message, fused_kernel),
    )
    dtypes = (torch.float32, torch.float64)

    def missing(self, device: torch.device) -> str | None:
        """No C++ compiler for a CPU, no Triton for a GPU."""
        if device.type == "cuda" and importlib.util.find_spec("triton") is None:
            return "Triton is not installed: pip install triton"
        if device.type == "cpu":
            return no_compiler()
        return super().missing(device)
