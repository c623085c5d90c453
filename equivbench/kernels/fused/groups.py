"""Edges grouped by one of their ends, and nodes by their element, on the device that they are on;
kept for as long as the list of indices lives."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

NEIGHBOUR, CENTRE = 0, 1
"""Rows of ``edge_index``."""

Made = TypeVar("Made")


class Groups(NamedTuple):
    """The edges of node n are ``order[starts[n] : starts[n + 1]]``, in their own order."""

    order: Tensor
    """[edges] int64."""
    others: Tensor
    """[edges] int64: the node at the other end of each of ``order``."""
    starts: Tensor
    """[nodes + 1] int64."""


class Centres(NamedTuple):
    """The edges of the n-th centre that has any are ``order[starts[n] : starts[n + 1]]``, in their
    own order."""

    order: Tensor
    """[edges] int64."""
    starts: Tensor
    """[centres + 1] int64."""


class ElementChunks(NamedTuple):
    """The nodes of each element in chunks: those of chunk c are ``order[begins[c] : ends[c]]``, in
    their own order, and the chunks of element e are ``firsts[e]`` to ``firsts[e + 1]``."""

    order: Tensor
    """[nodes] int64."""
    begins: Tensor
    """[chunks] int64: as many as there could be, so that those at the end may be empty."""
    ends: Tensor
    """[chunks] int64."""
    firsts: Tensor
    """[elements + 1] int64."""


_KEPT: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Indices -> their version, and what was made of them at that version."""


def groups(edge_index: Tensor, row: int, nodes: int) -> Groups:
    """The edges of ``edge_index`` [2, edges] grouped by ``row``, without waiting for the device."""
    return _kept(edge_index, (row, nodes), lambda: _group(edge_index, row, nodes))


def centres(edge_index: Tensor) -> Centres:
    """The edges of ``edge_index`` [2, edges] grouped by centre, whatever the centres are called.

    It waits for the device, which alone knows how many centres have edges. Raises ``IndexError``
    for a centre below 0.
    """
    return _kept(edge_index, "centres", lambda: _centres(edge_index))


def element_chunks(elements: Tensor, count: int, length: int) -> ElementChunks:
    """The nodes of ``elements`` [nodes], numbers below ``count``, by their element, at most
    ``length`` to a chunk, without waiting for the device."""
    key = "chunks", count, length
    return _kept(elements, key, lambda: _chunks(checked_elements(elements, count), count, length))


def checked_elements(elements: Tensor, count: int) -> Tensor:
    """``elements`` [nodes], of which the device has been told to stop where one is not among the
    ``count`` of the weights."""

    def check() -> None:
        _assert_inside(elements, count, f"elements names an element that is not among the {count}")

    _kept(elements, ("checked", count), check)
    return elements


def _kept(indices: Tensor, key: Hashable, make: Callable[[], Made]) -> Made:
    """What ``make`` makes of ``indices``: sorting takes longer than what the kernels do, so it is
    kept with the tensor, and made anew once the tensor has been written to."""
    if indices.is_inference():  # has no version by which a write could be seen
        return make()
    if indices not in _KEPT or _KEPT[indices][0] != indices._version:
        _KEPT[indices] = (indices._version, {})
    made: dict[Hashable, Any] = _KEPT[indices][1]
    if key not in made:
        made[key] = make()
    found: Made = made[key]
    return found


def _assert_inside(indices: Tensor, count: int, message: str) -> None:
    # As for torch's own indices, a GPU's error comes where the host next waits for it.
    torch._assert_async(((indices >= 0) & (indices < count)).all(), message)


def _group(edge_index: Tensor, row: int, nodes: int) -> Groups:
    message = f"edge_index names a node that is not among the {nodes} of x"
    _assert_inside(edge_index, nodes, message)
    keys, order = edge_index[row].sort(stable=True)
    return Groups(order, edge_index[1 - row].index_select(0, order), _starts(keys, nodes))


def _centres(edge_index: Tensor) -> Centres:
    keys, order = edge_index[CENTRE].sort(stable=True)
    _, counts = torch.unique_consecutive(keys, return_counts=True)
    if keys.numel() and int(keys[0]) < 0:
        raise IndexError("edge_index names a centre below 0")
    return Centres(order, _summed(counts))


def _chunks(elements: Tensor, count: int, length: int) -> ElementChunks:
    keys, order = elements.sort(stable=True)
    starts = _starts(keys, count)
    firsts = _summed((starts.diff() + length - 1) // length)
    chunk = torch.arange(len(elements) // length + count, device=elements.device)
    owner = (torch.searchsorted(firsts, chunk, right=True) - 1).clamp(max=count - 1)
    begins = starts[owner] + (chunk - firsts[owner]) * length
    return ElementChunks(order, begins, (begins + length).minimum(starts[owner + 1]), firsts)


def _starts(keys: Tensor, count: int) -> Tensor:
    """Where each of ``count`` numbers begins among the sorted ``keys``, and where the last ends."""
    return torch.searchsorted(keys, torch.arange(count + 1, device=keys.device))


def _summed(counts: Tensor) -> Tensor:
    """0 and the sums of the first, the first two, ... of ``counts``."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
