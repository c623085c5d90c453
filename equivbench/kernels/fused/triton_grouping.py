"""Edges grouped by one of their ends, on the device and without waiting for it; kept for as long as
the edge list lives."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

NEIGHBOUR, CENTRE = 0, 1
"""Rows of ``edge_index``."""


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
