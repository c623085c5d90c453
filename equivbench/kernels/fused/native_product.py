"""The fused edge product on a CPU: its generated C++, called with raw tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from equivbench.kernels.fused import native
from equivbench.kernels.fused.product_source import product_source, product_table
from equivbench.kernels.operations import EdgeProduct

_FEW_CENTRES = 1000
"""More rows for centres than so many, and than there are edges, are mostly of centres without."""


class _ProductTensors(ctypes.Structure):
    """The struct ``Tensors`` in the C++ text."""

    _fields_ = tuple(
        (name, ctypes.c_void_p)
        for name in (
            *("x", "y", "v", "w", "g", "u_x", "u_y", "u_v", "u_w"),
            *("out", "by_x", "by_y", "by_v", "by_w"),
        )
    )


@lru_cache(maxsize=64)
def compiled_product(operation: EdgeProduct, dtype: torch.dtype) -> Any:
    """The function of the library for ``operation`` in ``dtype``."""
    real = "double" if dtype == torch.float64 else "float"
    return native.launcher(product_source(product_table(operation), real), _ProductTensors)


def results(needs: Sequence[bool], *inputs: Tensor) -> tuple[Tensor, ...]:
    """Tensors for the derivatives by grad and the inputs, empty where not needed: the output is of
    the shape of x."""
    return tuple(
        inputs[0].new_empty(like.shape if needed else 0)
        for needed, like in zip(needs, (inputs[0], *inputs), strict=True)
    )


def launch(
    operation: EdgeProduct,
    needs: Sequence[bool],
    grad: Tensor | None,
    tangents: Sequence[Tensor | None],
    inputs: Sequence[Tensor],
    edge_index: Tensor,
) -> tuple[Tensor, ...]:
    """The operator of :mod:`equivbench.kernels.fused.product_operator`."""
    made = results(needs, *inputs)
    names = ("x", "y", "v", "w", "g", "u_x", "u_y", "u_v", "u_w")
    given = zip(names, (*inputs, grad, *tangents), strict=True)
    # Held in a variable until the call is over: the kernels read the rows of packed tensors.
    packed = {name: one.contiguous() for name, one in given if one is not None}
    outputs = zip(("out", "by_x", "by_y", "by_v", "by_w"), made, needs, strict=True)
    wanted = {name: one for name, one, needed in outputs if needed}
    if not wanted:
        return made
    edges = edge_index.shape[1]
    centres = edge_index[1]
    nodes = int(centres.max()) + 1 if edges else 0
    if nodes > max(_FEW_CENTRES, 4 * edges) and int(centres.min()) >= 0:
        found, centres = torch.unique(centres, return_inverse=True)
        nodes = len(found)
    centres = centres.contiguous()
    tensors = _ProductTensors(**{name: one.data_ptr() for name, one in (packed | wanted).items()})
    threads = max(1, min(torch.get_num_threads(), edges // native.EDGES_A_THREAD))
    # The output, first derivatives, or either along tangents.
    kind = 2 if any(one is not None for one in tangents) else int(grad is not None)
    problem = compiled_product(operation, inputs[0].dtype)(
        kind, nodes, edges, threads, centres.data_ptr(), ctypes.byref(tensors)
    )
    if problem == 1:
        raise MemoryError(f"no memory to group {edges} edges by centre")
    if problem == 2:
        raise IndexError("edge_index names a centre below 0")
    return made
