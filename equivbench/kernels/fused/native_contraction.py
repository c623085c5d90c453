"""The fused symmetric contraction on a CPU: its generated C++, called with raw tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from equivbench.kernels.fused.contraction_source import contraction_source
from equivbench.kernels.fused.native import launcher
from equivbench.kernels.fused.polynomial import polynomials
from equivbench.kernels.operations import SymmetricContraction

FEATURES_A_THREAD = 512
"""Below so many nodes times channels for each, fewer threads: waking one costs as much as it
saves."""


class _ContractionTensors(ctypes.Structure):
    """The struct of the same name in the C++ text."""

    _fields_ = tuple(
        (name, ctypes.c_void_p) for name in ("x", "w", "g", "u_x", "u_w", "out", "by_x", "by_w")
    )


@lru_cache(maxsize=64)
def compiled_contraction(operation: SymmetricContraction, dtype: torch.dtype) -> Any:
    """The function of the library for ``operation`` in ``dtype``."""
    real = "double" if dtype == torch.float64 else "float"
    return launcher(contraction_source(polynomials(operation), real), _ContractionTensors)


def results(
    operation: SymmetricContraction, needs: Sequence[bool], x: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Tensors for the derivatives by grad, x and weights, empty where not needed."""
    shapes = ((x.shape[0], operation.target_size), x.shape, weights.shape)
    out, by_x, by_weights = (
        x.new_empty(shape if needed else 0) for needed, shape in zip(needs, shapes, strict=True)
    )
    return out, by_x, by_weights


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
    given = zip(("x", "w", "g", "u_x", "u_w"), (x, weights, grad, *tangents), strict=True)
    # Held in a variable until the call is over: the kernels read the rows of packed tensors.
    packed = {name: one.contiguous() for name, one in given if one is not None}
    element = elements.contiguous()
    wanted = {
        name: one
        for name, one, needed in zip(("out", "by_x", "by_w"), made, needs, strict=True)
        if needed
    }
    if not wanted:
        return made
    tensors = _ContractionTensors(
        **{name: one.data_ptr() for name, one in (packed | wanted).items()}
    )
    nodes, rows = x.shape[0], weights.shape[0]
    features = nodes * operation.channels
    threads = max(1, min(torch.get_num_threads(), features // FEATURES_A_THREAD))
    # The output, first derivatives, or either along tangents.
    kind = 2 if any(one is not None for one in tangents) else int(grad is not None)
    problem = compiled_contraction(operation, x.dtype)(
        kind, nodes, rows, threads, element.data_ptr(), ctypes.byref(tensors)
    )
    if problem == 1:
        raise MemoryError(f"no memory to group {nodes} nodes by element")
    if problem == 2:
        raise IndexError(f"elements names an element that is not among the {rows} of the weights")
    return made
