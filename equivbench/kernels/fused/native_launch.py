"""The fused convolution on a CPU: raw tensors in, raw tensors out, through the compiled library of
the operation."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from equivbench.kernels.fused import native
from equivbench.kernels.fused.coupling import couplings
from equivbench.kernels.fused.native_source import source
from equivbench.kernels.operations import Convolution

REAL = {torch.float32: "float", torch.float64: "double"}
EDGES_A_THREAD = 64
"""Below so many edges for each, fewer threads: waking one costs as much as it saves."""


class _Tensors(ctypes.Structure):
    """The struct of the same name in the C++ text."""

    _fields_ = tuple(
        (name, ctypes.c_void_p)
        for name in ("x", "y", "w", "g", "u_x", "u_y", "u_w", "out", "by_x", "by_y", "by_w")
    )


@lru_cache(maxsize=64)
def compiled(operation: Convolution, dtype: torch.dtype) -> tuple[Any, float]:
    """The function of the library for ``operation`` in ``dtype``, and the seconds that compiling it
    took just now."""
    library, seconds = native.library(source(couplings(operation), REAL[dtype]))
    launch = library.launch
    sizes = [ctypes.c_int64] * 3
    launch.argtypes = [ctypes.c_int, *sizes, ctypes.c_void_p, ctypes.POINTER(_Tensors)]
    return launch, seconds


def launch_forward(
    operation: Convolution, x: Tensor, harmonics: Tensor, weights: Tensor, edge_index: Tensor
) -> Tensor:
    """[nodes, target_size]: the convolution."""
    out = x.new_empty(x.shape[0], operation.target_size)
    _launch(0, operation, edge_index, {"x": x, "y": harmonics, "w": weights}, {"out": out})
    return out


def launch_backward(
    operation: Convolution,
    needs: tuple[bool, bool, bool],
    grad: Tensor,
    x: Tensor,
    harmonics: Tensor,
    weights: Tensor,
    edge_index: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients by x, harmonics and weights of <grad, output>; an empty tensor for each that
    ``needs`` does not ask."""
    by_x, by_y, by_w = (
        _result(one, needed) for one, needed in zip((x, harmonics, weights), needs, strict=True)
    )
    given = {"x": x, "y": harmonics, "w": weights, "g": grad}
    _launch(1, operation, edge_index, given, {"by_x": by_x, "by_y": by_y, "by_w": by_w}, needs)
    return by_x, by_y, by_w


def launch_double_backward(
    operation: Convolution,
    needs: tuple[bool, bool, bool, bool],
    cotangents: tuple[Tensor | None, Tensor | None, Tensor | None],
    grad: Tensor,
    x: Tensor,
    harmonics: Tensor,
    weights: Tensor,
    edge_index: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients by grad, x, harmonics and weights of the sum of <cotangent, gradient> over
    :func:`launch_backward`'s three.

    A cotangent that is None counts as zero; an empty tensor for each gradient that ``needs`` does
    not ask.
    """
    out, by_x, by_y, by_w = (
        _result(one, needed)
        for one, needed in zip((grad, x, harmonics, weights), needs, strict=True)
    )
    given = {"x": x, "y": harmonics, "w": weights, "g": grad}
    given |= {
        name: one
        for name, one in zip(("u_x", "u_y", "u_w"), cotangents, strict=True)
        if one is not None
    }
    _launch(
        2,
        operation,
        edge_index,
        given,
        {"out": out, "by_x": by_x, "by_y": by_y, "by_w": by_w},
        needs,
    )
    return out, by_x, by_y, by_w


def _result(like: Tensor, needed: bool) -> Tensor:
    return like.new_empty(like.shape if needed else 0)


def _launch(
    kind: int,
    operation: Convolution,
    edge_index: Tensor,
    given: dict[str, Tensor],
    results: dict[str, Tensor],
    needs: tuple[bool, ...] = (True,),
) -> None:
    """Run one of the kernels: kind 0, 1 or 2 for the output, first and second derivatives."""
    # Held in a variable until the call is over: the kernels read the rows of packed tensors.
    packed = {name: one.contiguous() for name, one in given.items()}
    edges = edge_index.contiguous()
    wanted = [
        (name, one) for (name, one), needed in zip(results.items(), needs, strict=True) if needed
    ]
    if not wanted:
        return
    tensors = _Tensors(
        **{name: one.data_ptr() for name, one in packed.items()},
        **{name: one.data_ptr() for name, one in wanted},
    )
    threads = max(1, min(torch.get_num_threads(), edges.shape[1] // EDGES_A_THREAD))
    launch, _ = compiled(operation, packed["x"].dtype)
    problem = launch(
        kind, packed["x"].shape[0], edges.shape[1], threads, edges.data_ptr(), ctypes.byref(tensors)
    )
    if problem == 1:
        raise MemoryError(f"no memory to group {edges.shape[1]} edges by centre")
    if problem == 2:
        raise IndexError(
            f"edge_index names a node that is not among the {packed['x'].shape[0]} of x"
        )
