"""Into the frames of edges and back on a CPU: generated C++, called with raw tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from equivbench.kernels.fused import native
from equivbench.kernels.fused.frames_source import frames_source
from equivbench.kernels.operations.edge_frames import FrameTurn


class _FrameTensors(ctypes.Structure):
    """The struct ``Tensors`` in the C++ text."""

    _fields_ = tuple(
        (name, ctypes.c_void_p)
        for name in (
            *("a", "w", "d", "b", "u_a", "u_w", "u_d", "u_b"),
            *("by_a", "by_w", "by_d", "by_b"),
        )
    )


@lru_cache(maxsize=64)
def compiled_turn(turn: FrameTurn, back: bool, dtype: torch.dtype) -> Any:
    """The function of the library for ``turn``, ``back`` from the frames or into them."""
    real = "double" if dtype == torch.float64 else "float"
    return native.launcher(frames_source(turn, back, real), _FrameTensors)


def launch(
    turn: FrameTurn,
    back: bool,
    nodes: int,
    grad: Tensor | None,
    inputs: Sequence[Tensor],
    tangents: Sequence[Tensor | None],
    results: Sequence[Tensor | None],
    edge_index: Tensor,
) -> None:
    """Fill ``results``, by grad, frames, weights and features, None where there is nothing to fill.

    ``inputs`` and ``tangents`` are of frames, weights and features, which lie at the nodes on the
    way into the frames and at the edges on the way ``back``.
    """
    given, output = ("a", "b") if back else ("b", "a")
    names = ("d", "w", given)
    values = {output: grad, **dict(zip(names, inputs, strict=True))}
    values |= {f"u_{name}": one for name, one in zip(names, tangents, strict=True)}
    # Held in a variable until the call is over: the kernels read the rows of packed tensors.
    packed = {name: one.contiguous() for name, one in values.items() if one is not None}
    wanted = {
        f"by_{name}": one
        for name, one in zip((output, *names), results, strict=True)
        if one is not None
    }
    if not wanted:
        return
    edges = edge_index.contiguous()
    tensors = _FrameTensors(**{name: one.data_ptr() for name, one in (packed | wanted).items()})
    threads = max(1, min(torch.get_num_threads(), edges.shape[1] // native.EDGES_A_THREAD))
    # The output, first derivatives, or either along tangents.
    kind = 2 if any(one is not None for one in tangents) else int(grad is not None)
    problem = compiled_turn(turn, back, inputs[0].dtype)(
        kind, nodes, edges.shape[1], threads, edges.data_ptr(), ctypes.byref(tensors)
    )
    native.raise_for(problem, nodes, edges.shape[1])
