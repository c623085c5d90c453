"""Into the frames of edges and back on a GPU: launches the written Triton kernels on plain
tensors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from equivbench.kernels.fused.groups import CENTRE, NEIGHBOUR, groups
from equivbench.kernels.fused.triton_frames_source import TurnRequest, reached, write_turn
from equivbench.kernels.fused.triton_function import (
    accumulate_in,
    block_of,
    run_programs,
    triton_function,
)
from equivbench.kernels.operations.edge_frames import FrameTurn

BLOCK = 64
"""Most channels of a program: two for each lane of its warp, read eight bytes at once."""


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
    """Fill ``results``, by grad, frames, weights and features, None where there is nothing to fill;
    all in one kernel.

    ``inputs`` and ``tangents`` are of frames, weights and features, which lie at the nodes on the
    way into the frames and at the edges on the way ``back``.
    """
    given, output = "node_features", "edge_features"
    if back:
        given, output = output, given
    names = ("frames", "weights", given)
    tensors = {name: one.contiguous() for name, one in zip(names, inputs, strict=True)}
    along = {name: one for name, one in zip(names, tangents, strict=True) if one is not None}
    tensors |= {f"tangent_{name}": one.contiguous() for name, one in along.items()}
    asked = zip((output, *names), results, strict=True)
    made = {name: one for name, one in asked if one is not None}
    wanted = frozenset(made) & reached(frozenset(along))
    for name in made.keys() - wanted:
        made[name].zero_()
    if not wanted:
        return
    if wanted - {output}:
        assert grad is not None
        tensors[output] = grad.contiguous()
    like, block = inputs[0], block_of(turn.channels, BLOCK)
    request = TurnRequest(turn, back, frozenset(along), wanted, accumulate_in(like), block)
    tensors |= {f"gradient_{name}": made[name] for name in wanted}
    # Every program writes a share of its own, so that their sum has one order.
    for name, count in request.shares.items():
        # Elements that are not used here have no derivative.
        some = name == "frames" and turn.used < turn.frame_size
        new = like.new_zeros if some else like.new_empty
        edges, width = made[name].shape
        tensors[f"gradient_{name}"] = new(edges, count, width)
    for end, row in enumerate((CENTRE,) if back else (NEIGHBOUR, CENTRE)[: turn.ends]):
        found = groups(edge_index, row, nodes)
        tensors |= {f"order{end}": found.order, f"starts{end}": found.starts}
    of_kernel = [tensors[name] for name in request.pointers]
    run_programs(turn_kernel(request), nodes * request.programs, of_kernel)
    for name in request.shares:
        torch.sum(tensors[f"gradient_{name}"], 1, out=made[name])


@lru_cache(maxsize=256)
def turn_kernel(request: TurnRequest) -> Any:
    """The Triton function for ``request``; raises ``FailedError`` where triton is absent."""
    return triton_function("turn", write_turn(request))
