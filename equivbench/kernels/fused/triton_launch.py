"""The fused operations along edges on a GPU: launches the written Triton kernels on plain tensors.

Products and sums are in float32 (float64 for float64 inputs) and no tensor core takes part, so no
TF32 either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from equivbench.kernels.fused.coupling import EdgeOperation, couplings
from equivbench.kernels.fused.groups import CENTRE, NEIGHBOUR, groups
from equivbench.kernels.fused.triton_function import (
    accumulate_in,
    block_of,
    run_programs,
    triton_function,
)
from equivbench.kernels.fused.triton_source import (
    INPUTS,
    TritonKernelKind,
    TritonRequest,
    parts,
    write,
)

BLOCK = 64
"""Most channels of a program: two for each lane of its warp, read eight bytes at once."""


def launch(
    operation: EdgeOperation,
    needs: Sequence[bool],
    grad: Tensor | None,
    tangents: Sequence[Tensor | None],
    x: Tensor,
    harmonics: Tensor,
    weights: Tensor,
    edge_index: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The operator of :mod:`equivbench.kernels.fused.edge_operator`, in a kernel for the derivative
    by grad and another for the others."""
    given = {
        name: one.contiguous()
        for name, one in zip(INPUTS, tangents, strict=True)
        if one is not None
    }
    pointers = [x.contiguous(), harmonics.contiguous(), weights.contiguous(), *given.values()]
    sources = couplings(operation).sources
    block = block_of(max(one.channels for one in sources), BLOCK)
    count = len(parts(operation, block))

    def run(kind: TritonKernelKind, row: int, made: Mapping[str, Tensor], *tensors: Tensor) -> None:
        wanted = frozenset(made)
        request = TritonRequest(operation, kind, frozenset(given), wanted, accumulate_in(x), block)
        if nodes := x.shape[0]:
            ends = groups(edge_index, row, nodes)
            run_programs(kernel(request), nodes * count, [*tensors, *made.values(), *ends])

    empty = x.new_empty(0)
    by_grad = x.new_empty(x.shape[0], operation.target_size) if needs[0] else empty
    if needs[0]:
        run("centres", CENTRE, {}, *pointers, by_grad)
    made: dict[str, Tensor] = {}
    if needs[1]:
        features = sum(one.height * one.channels for one in sources)
        all_written = features == operation.source_size
        made["x"] = torch.empty_like(pointers[0]) if all_written else torch.zeros_like(pointers[0])
    if needs[2]:
        # Every part writes a share of its own, so that their sum has one order.
        all_written = all(len(one.harmonics) == harmonics.shape[1] for one in sources)
        new = torch.empty if all_written else torch.zeros
        shape = (harmonics.shape[0], count, harmonics.shape[1])
        made["harmonics"] = new(shape, dtype=x.dtype, device=x.device)
    if needs[3]:
        # Along a tangent of the weights alone the sum does not depend on them, and nothing is
        # written.
        written = set(given) != {"weights"}
        made["weights"] = (torch.empty_like if written else torch.zeros_like)(pointers[2])
    if made:
        assert grad is not None
        run("neighbours", NEIGHBOUR, made, grad.contiguous(), *pointers)
    if needs[2]:
        made["harmonics"] = made["harmonics"].sum(1)
    by_x, by_harmonics, by_weights = (made.get(name, empty) for name in INPUTS)
    return by_grad, by_x, by_harmonics, by_weights


@lru_cache(maxsize=256)
def kernel(request: TritonRequest) -> Any:
    """The Triton function for ``request``; raises ``FailedError`` where triton is absent."""
    return triton_function(request.operation.name, write(request))
