"""The fused operations on a GPU: launches the generated Triton kernels on plain tensors.

Products and sums are in float32 (float64 for float64 inputs) and no tensor core takes part, so no
TF32 either.
"""

from __future__ import annotations

import hashlib
import importlib
import linecache
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from equivbench.errors import FailedError
from equivbench.kernels.fused.coupling import EdgeOperation, couplings
from equivbench.kernels.fused.triton_source import (
    INPUTS,
    Accumulate,
    TritonKernelKind,
    TritonRequest,
    parts,
    write,
)

NEIGHBOUR, CENTRE = 0, 1
"""Rows of ``edge_index``."""
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
    # A power of two, as Triton wants it, and no more than there are.
    sources = couplings(operation).sources
    block = min(BLOCK, 1 << (max(one.channels for one in sources) - 1).bit_length())
    sums = torch.float64 if x.dtype == torch.float64 else torch.float32
    count = len(parts(operation, block))

    def run(kind: TritonKernelKind, row: int, made: Mapping[str, Tensor], *tensors: Tensor) -> None:
        accumulate: Accumulate = "float64" if sums == torch.float64 else "float32"
        request = TritonRequest(
            operation, kind, frozenset(given), frozenset(made), accumulate, block
        )
        if programs := x.shape[0] * count:
            ends = groups(edge_index, row, x.shape[0])
            # Triton launches on the current device, whatever the tensors are on. Products and sums
            # are fused: more accurate, and no longer Triton's default from 3.10 on.
            with torch.cuda.device_of(edge_index):  # type: ignore[no-untyped-call]
                kernel(request)[(programs,)](
                    *tensors, *made.values(), *ends, num_warps=1, enable_fp_fusion=True
                )

    empty = x.new_empty(0)
    by_grad = x.new_empty(x.shape[0], operation.target_size) if needs[0] else empty
    if needs[0]:
        run("centres", CENTRE, {}, *pointers, by_grad)
    made: dict[str, Tensor] = {}
    if needs[1]:
        written = sum(one.height * one.channels for one in sources)
        all_written = written == operation.source_size
        made["x"] = torch.empty_like(pointers[0]) if all_written else torch.zeros_like(pointers[0])
    if needs[2]:
        # Every part writes a share of its own, so that their sum has one order.
        all_written = all(len(one.harmonics) == harmonics.shape[1] for one in sources)
        new = torch.empty if all_written else torch.zeros
        shape = (harmonics.shape[0], count, harmonics.shape[1])
        made["harmonics"] = new(shape, dtype=sums, device=x.device)
    if needs[3]:
        made["weights"] = torch.empty_like(pointers[2])
    if made:
        assert grad is not None
        run("neighbours", NEIGHBOUR, made, grad.contiguous(), *pointers)
    if needs[2]:
        made["harmonics"] = made["harmonics"].sum(1).to(harmonics.dtype)
    by_x, by_harmonics, by_weights = (made.get(name, empty) for name in INPUTS)
    return by_grad, by_x, by_harmonics, by_weights


@lru_cache(maxsize=256)
def kernel(request: TritonRequest) -> Any:
    """The Triton function for ``request``; it is compiled in its first call for each kind of
    argument.

    Raises ``FailedError`` where triton is absent.
    """
    try:
        triton, tl = importlib.import_module("triton"), importlib.import_module("triton.language")
    except ImportError as error:
        raise FailedError(
            "the Triton kernels need triton, not installed here: pip install triton"
        ) from error
    source = write(request)
    # Triton reads a function's source through inspect, which finds code without a file in
    # linecache.
    name = f"<{request.operation.name} {hashlib.sha256(source.encode()).hexdigest()[:16]}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    namespace: dict[str, Any] = {"triton": triton, "tl": tl, "__name__": f"{__name__}.generated"}
    exec(compile(source, name, "exec"), namespace)
    return namespace["kernel"]


# Edges grouped by one of their ends, on the device and without waiting for it; kept for as long as
# the edge list lives.


class Groups(NamedTuple):
    """The edges of node n are ``order[starts[n] : starts[n + 1]]``, in their own order."""

    order: Tensor
    """[edges] int64."""
    others: Tensor
    """[edges] int64: the node at the other end of each of ``order``."""
    starts: Tensor
    """[nodes + 1] int64."""


_KEPT: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Edge list -> its version and the groups made at that version, by (row, nodes)."""


def groups(edge_index: Tensor, row: int, nodes: int) -> Groups:
    """The edges of ``edge_index`` [2, edges] grouped by ``row``.

    Sorting takes longer than the convolution, so the result is kept with the tensor, and made anew
    once the tensor has been written to.
    """
    if edge_index.is_inference():  # has no version by which a write could be seen
        return _group(edge_index, row, nodes)
    if edge_index not in _KEPT or _KEPT[edge_index][0] != edge_index._version:
        _KEPT[edge_index] = (edge_index._version, {})
    made: dict[tuple[int, int], Groups] = _KEPT[edge_index][1]
    if (row, nodes) not in made:
        made[row, nodes] = _group(edge_index, row, nodes)
    return made[row, nodes]


def _group(edge_index: Tensor, row: int, nodes: int) -> Groups:
    # As for torch's own indices, a GPU's error comes where the host next waits for it.
    inside = ((edge_index >= 0) & (edge_index < nodes)).all()
    torch._assert_async(inside, f"edge_index names a node that is not among the {nodes} of x")
    keys, order = edge_index[row].sort(stable=True)
    starts = torch.searchsorted(keys, torch.arange(nodes + 1, device=keys.device))
    return Groups(order, edge_index[1 - row].index_select(0, order), starts)
