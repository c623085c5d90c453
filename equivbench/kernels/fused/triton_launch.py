"""Launches the generated Triton kernels of the convolution and of its first and second gradients,
on plain tensors.

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
from equivbench.kernels.fused.coupling import couplings
from equivbench.kernels.fused.triton_source import (
    INPUTS,
    TritonKernelKind,
    TritonRequest,
    parts,
    write,
)
from equivbench.kernels.operations import Convolution

NEIGHBOUR, CENTRE = 0, 1
"""Rows of ``edge_index``."""
BLOCK = 64
"""Most channels of a program: two for each lane of its warp, read eight bytes at once."""


def launch_forward(
    operation: Convolution, x: Tensor, harmonics: Tensor, weights: Tensor, edge_index: Tensor
) -> Tensor:
    """The convolution: [nodes, target_size]."""
    inputs = _checked(operation, x, harmonics, weights, edge_index)
    return _centres(operation, inputs, {}, edge_index)


def launch_backward(
    operation: Convolution,
    needs: Sequence[bool],
    grad: Tensor,
    x: Tensor,
    harmonics: Tensor,
    weights: Tensor,
    edge_index: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of <grad, convolution> by x, harmonics and weights in one kernel; empty [0]
    where ``needs`` is False.

    ``grad`` [nodes, target_size].
    """
    inputs = _checked(operation, x, harmonics, weights, edge_index)
    return _neighbours(operation, needs, grad, inputs, {}, edge_index)


def launch_double_backward(
    operation: Convolution,
    needs: Sequence[bool],
    cotangents: Sequence[Tensor | None],
    grad: Tensor,
    x: Tensor,
    harmonics: Tensor,
    weights: Tensor,
    edge_index: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of the sum over inputs of <cotangent, gradient by it>, by grad, x, harmonics
    and weights, in two kernels.

    ``cotangents`` of the gradients by x, harmonics and weights, shaped as these, or None; empty [0]
    where ``needs`` is False.
    """
    inputs = _checked(operation, x, harmonics, weights, edge_index)
    tangents = {
        name: given for name, given in zip(INPUTS, cotangents, strict=True) if given is not None
    }
    if not tangents:
        zeros = [
            torch.zeros_like(one) if need else x.new_empty(0)
            for need, one in zip(needs, (grad, *inputs.values()), strict=True)
        ]
        return zeros[0], zeros[1], zeros[2], zeros[3]
    by_grad = _centres(operation, inputs, tangents, edge_index) if needs[0] else x.new_empty(0)
    return by_grad, *_neighbours(operation, needs[1:], grad, inputs, tangents, edge_index)


def _centres(
    operation: Convolution,
    inputs: Mapping[str, Tensor],
    tangents: Mapping[str, Tensor],
    edge_index: Tensor,
) -> Tensor:
    x = inputs["x"]
    output = x.new_empty(x.shape[0], operation.target_size)
    request = _request(operation, "centres", tangents, frozenset(), x.dtype)
    _launch(request, [*_pointers(inputs, tangents), output], edge_index, CENTRE, x.shape[0])
    return output


def _neighbours(
    operation: Convolution,
    needs: Sequence[bool],
    grad: Tensor,
    inputs: Mapping[str, Tensor],
    tangents: Mapping[str, Tensor],
    edge_index: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    x, harmonics, weights = inputs["x"], inputs["harmonics"], inputs["weights"]
    wanted = frozenset(name for name, need in zip(INPUTS, needs, strict=True) if need)
    request = _request(operation, "neighbours", tangents, wanted, x.dtype)
    made: dict[str, Tensor] = {}
    if "x" in wanted:
        every_degree = len({path.source for path in operation.paths}) == len(operation.channels)
        made["x"] = torch.empty_like(x) if every_degree else torch.zeros_like(x)
    if "harmonics" in wanted:
        # Every part writes a share of its own, so that their sum has one order.
        new = torch.empty if _every_harmonic(operation) else torch.zeros
        shape = (harmonics.shape[0], len(parts(operation, request.block)), harmonics.shape[1])
        made["harmonics"] = new(shape, dtype=getattr(torch, request.accumulate), device=x.device)
    if "weights" in wanted:
        made["weights"] = torch.empty_like(weights)
    if wanted:
        pointers = [grad.contiguous(), *_pointers(inputs, tangents), *made.values()]
        _launch(request, pointers, edge_index, NEIGHBOUR, x.shape[0])
    if "harmonics" in wanted:
        made["harmonics"] = made["harmonics"].sum(1).to(harmonics.dtype)
    empty = x.new_empty(0)
    return made.get("x", empty), made.get("harmonics", empty), made.get("weights", empty)


def _checked(
    operation: Convolution, x: Tensor, harmonics: Tensor, weights: Tensor, edge_index: Tensor
) -> dict[str, Tensor]:
    """The inputs, contiguous; raises ``ValueError`` for other shapes, since a kernel would read
    past the end."""
    operation.check_shapes(x, harmonics, weights, edge_index)
    return {
        "x": x.contiguous(),
        "harmonics": harmonics.contiguous(),
        "weights": weights.contiguous(),
    }


def _pointers(inputs: Mapping[str, Tensor], tangents: Mapping[str, Tensor]) -> list[Tensor]:
    return [*inputs.values(), *(tensor.contiguous() for tensor in tangents.values())]


def _request(
    operation: Convolution,
    kind: TritonKernelKind,
    tangents: Mapping[str, Tensor],
    wanted: frozenset[str],
    dtype: torch.dtype,
) -> TritonRequest:
    # A power of two, as Triton wants it, and no more than there are.
    block = min(BLOCK, 1 << (max(operation.channels) - 1).bit_length())
    accumulate = "float64" if dtype == torch.float64 else "float32"
    return TritonRequest(operation, kind, frozenset(tangents), wanted, accumulate, block)  # type: ignore[arg-type]


@lru_cache(maxsize=64)
def _every_harmonic(operation: Convolution) -> bool:
    """Whether every part reads every harmonic, and so writes a whole row of its share."""
    found = couplings(operation)
    read: dict[int, set[int]] = {}
    for path in found.paths:
        read.setdefault(path.source, set()).update(
            k for _, _, slot in path.entries for k, _ in found.slots[slot]
        )
    return all(len(rows) == (operation.edge_lmax + 1) ** 2 for rows in read.values())


def _launch(
    request: TritonRequest, pointers: Sequence[Tensor], edge_index: Tensor, row: int, nodes: int
) -> None:
    programs = nodes * len(parts(request.operation, request.block))
    if programs:
        made = groups(edge_index, row, nodes)
        # Triton launches on the current device, whatever the tensors are on. Products and sums are
        # fused: more accurate, and no longer Triton's default from 3.10 on.
        with torch.cuda.device_of(edge_index):  # type: ignore[no-untyped-call]
            kernel(request)[(programs,)](*pointers, *made, num_warps=1, enable_fp_fusion=True)


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
    name = f"<convolution {hashlib.sha256(source.encode()).hexdigest()[:16]}>"
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
    keys, order = edge_index[row].sort(stable=True)
    starts = torch.searchsorted(keys, torch.arange(nodes + 1, device=keys.device))
    return Groups(order, edge_index[1 - row].index_select(0, order), starts)
