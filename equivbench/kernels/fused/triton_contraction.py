"""The fused symmetric contraction on a GPU: launches its written Triton kernels on plain
tensors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from torch import Tensor

from equivbench.kernels.fused.groups import checked_elements, element_chunks
from equivbench.kernels.fused.native_contraction import results
from equivbench.kernels.fused.triton_contraction_source import (
    INPUTS,
    ContractionKernelKind,
    ContractionRequest,
    write_contraction,
)
from equivbench.kernels.fused.triton_function import (
    accumulate_in,
    block_of,
    run_programs,
    triton_function,
)
from equivbench.kernels.operations import SymmetricContraction

BLOCK = 32
"""Most channels of a program: one for each lane of its warp, which keeps all of a node in
registers."""
_WEIGHTS_BLOCK = 128
"""Most weights of a program that adds up shares of their gradients."""
PROGRAMS = 4096
"""About as many programs for the gradients, a third more than a large GPU has in flight; of more
nodes each takes several, so that shares of gradients stay few."""


def launch(
    operation: SymmetricContraction,
    needs: Sequence[bool],
    grad: Tensor | None,
    tangents: Sequence[Tensor | None],
    x: Tensor,
    weights: Tensor,
    elements: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator of :mod:`equivbench.kernels.fused.contraction_operator`."""
    made = results(operation, needs, x, weights)
    nodes, count = x.shape[0], weights.shape[0]
    along = frozenset(name for name, one in zip(INPUTS, tangents, strict=True) if one is not None)
    tensors = {"output": made[0], "gradient_x": made[1], "gradient_weights": made[2]}
    for name, one, tangent in zip(INPUTS, (x, weights), tangents, strict=True):
        tensors[name] = one.contiguous()
        if tangent is not None:
            tensors[f"tangent_{name}"] = tangent.contiguous()
    wanted = frozenset(name for name, needed in zip(INPUTS, needs[1:], strict=True) if needed)

    def run(kind: ContractionKernelKind, rows: int) -> None:
        most, width = (
            (_WEIGHTS_BLOCK, operation.weight_size)
            if kind == "shares"
            else (BLOCK, operation.channels)
        )
        block = block_of(width, most)
        request = ContractionRequest(operation, kind, along, wanted, accumulate_in(x), block)
        of_kernel = [tensors[name] for name in request.pointers]
        run_programs(contraction_kernel(request), rows * request.lanes.count, of_kernel)

    tensors["elements"] = checked_elements(elements, count).contiguous()
    if needs[0]:
        run("outputs", nodes)
    if wanted:
        assert grad is not None
        blocks = -(-operation.channels // BLOCK)
        chunks = element_chunks(elements, count, max(1, -(-nodes * blocks // PROGRAMS)))
        tensors |= {"cotangent": grad.contiguous(), **chunks._asdict()}
        if "weights" in wanted:
            tensors["shares"] = x.new_empty(len(chunks.begins), operation.weight_size)
        run("gradients", len(chunks.begins))
        if "weights" in wanted:
            run("shares", count)
    return made


@lru_cache(maxsize=256)
def contraction_kernel(request: ContractionRequest) -> Any:
    """The Triton function for ``request``; raises ``FailedError`` where triton is absent."""
    return triton_function(request.operation.name, write_contraction(request))
