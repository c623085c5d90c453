"""What takes features into the frames of edges, or back, as an operation of its own, and its Triton
kernels as a function."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from equivbench.kernels.fused import triton_frames
from equivbench.kernels.operations.edge_frames import FrameTurn, frame_elements, frame_rows


@dataclass(frozen=True)
class Turning:
    """``turn``, from the frames where ``back``."""

    turn: FrameTurn
    back: bool = False

    @property
    def differentiable(self) -> tuple[str, ...]:
        """All inputs but the indices."""
        return ("frames", "scales", "z") if self.back else ("frames", "weights", "x")

    def shapes(self, nodes: int, edges: int) -> dict[str, tuple[int, ...]]:
        """Of the gradient of the output as ``grad``, of these inputs, and of the indices."""
        turn = self.turn
        of_edges, of_nodes = (edges, turn.edge_size), (nodes, turn.node_size)
        output, given = (of_nodes, of_edges) if self.back else (of_edges, of_nodes)
        weights = (edges, 1 if self.back else turn.weight_size)
        inputs = zip(self.differentiable, ((edges, turn.frame_size), weights, given), strict=True)
        return {"grad": output, **dict(inputs), "edge_index": (2, edges)}

    def reference(
        self, nodes: int, index: Tensor, frames: Tensor, weights: Tensor, features: Tensor
    ) -> Tensor:
        """Row by row, with Wigner matrices written out."""
        turn = self.turn
        stored = frame_rows(turn.lmax, turn.mmax)
        elements = {
            (*stored[row], column): frames[:, place].unsqueeze(1)
            for place, (row, column) in enumerate(frame_elements(turn.lmax, turn.mmax))
        }
        columns = [(l, c) for l in range(turn.degree + 1) for c in range(l**2, (l + 1) ** 2)]
        given = torch.unflatten(features, 1, (-1, turn.channels))
        if self.back:
            messages = [
                _sum(
                    weights * elements[l, m, c] * given[:, n]
                    for n, (l, m) in enumerate(turn.rows)
                    if l == degree
                )
                for degree, c in columns
            ]
            zeros = features.new_zeros(nodes, turn.node_size)
            out: Tensor = zeros.index_add(0, index[1], torch.cat(messages, dim=1))
            return out
        ends = torch.cat([given[row] for row in index[: turn.ends]], dim=2)
        kinds = [(l, m) for m in range(turn.order + 1) for l in range(m, turn.degree + 1)]
        factors = torch.unflatten(weights, 1, (-1, turn.ends * turn.channels))
        rows = [
            _sum(elements[l, m, c] * ends[:, c] for degree, c in columns if degree == l)
            * factors[:, kinds.index((l, abs(m)))]
            for l, m in turn.rows
        ]
        return torch.cat(rows, dim=1)

    def launch(
        self,
        nodes: int,
        index: Tensor,
        needs: Sequence[bool],
        grad: Tensor | None,
        tangents: Sequence[Tensor | None],
        inputs: Sequence[Tensor],
    ) -> tuple[Tensor, ...]:
        """The kernels' results, empty where not needed, and NaN where nothing was written."""
        shapes = self.shapes(nodes, index.shape[1])
        names = ("grad", *self.differentiable)
        made = [
            inputs[0].new_full(shapes[name], float("nan")) if needed else None
            for name, needed in zip(names, needs, strict=True)
        ]
        turn, back = self.turn, self.back
        triton_frames.launch(turn, back, nodes, grad, inputs, tangents, made, index)
        return tuple(inputs[0].new_empty(0) if one is None else one for one in made)


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum(0)
