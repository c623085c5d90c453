"""Gather and sum on a molecular graph: source j is row 0 of ``edge_index``, target i is row 1,
edges sorted by i.

``index_select`` and ``index_add`` are written out because on a CPU they are 5-10 times as fast as
``x[index]`` and its backward.
"""

from __future__ import annotations

from torch import Tensor, nn

from equivbench.kernels.backends.plain.irreps import envelope as envelope
from equivbench.kernels.backends.plain.irreps import radial_basis as radial_basis

ELEMENTS = 100
"""Rows of an element embedding: atomic numbers 0 to 99."""


def edge_vectors(pos: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
    """(r_j - r_i [edges, 3], its length [edges]), in A, differentiable in ``pos``."""
    vectors = pos.index_select(0, edge_index[0]) - pos.index_select(0, edge_index[1])
    return vectors, vectors.square().sum(-1).sqrt()


def sum_by(index: Tensor, values: Tensor, rows: int) -> Tensor:
    """[rows, ...]: the sum of the ``values`` [n, ...] that ``index`` [n] assigns to each row."""
    return values.new_zeros((rows, *values.shape[1:])).index_add(0, index, values)


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear, SiLU, Linear."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs))
