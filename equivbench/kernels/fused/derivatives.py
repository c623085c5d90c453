"""The derivatives of the operator of :mod:`equivbench.kernels.fused.edge_operator`, in reverse and
forward, and a batch of its calls as one: each in terms of the operator itself.

The form S is linear in each of g, x, Y and w. So the derivative of any result along a change of
inputs is the sum of the same terms with one input replaced, which is what the operator gives for
tangents, and forward mode needs no kernel of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

FusedResults = list[Tensor | None]
"""By grad, x, harmonics and weights; None for what is not asked for, or zero."""


class FusedCall(NamedTuple):
    """One call of the operator, or what belongs to each of its arguments, in groups."""

    needs: Sequence[bool]
    grad: Tensor | None
    tangents: Sequence[Tensor | None]
    """In place of x, harmonics and weights."""
    inputs: Sequence[Tensor]
    """x, harmonics and weights."""
    edge_index: Tensor
    description: Sequence[Any]
    """Name and numbers of the operation."""

    @classmethod
    def of(cls, arguments: Sequence[Any]) -> FusedCall:
        """The arguments in groups."""
        needs, grad, *others = arguments
        return cls(needs, grad, others[:3], others[3:6], others[6], others[7:])

    def results(self, **changes: Any) -> FusedResults:
        """What the operator gives after ``changes`` to the call."""
        call = self._replace(**changes)
        if not any(call.needs):
            return [None] * 4
        found = torch.ops.equivbench.fused_along_edges(
            list(call.needs),
            call.grad,
            *call.tangents,
            *call.inputs,
            call.edge_index,
            *call.description,
        )
        return [one if needed else None for needed, one in zip(call.needs, found, strict=True)]

    def refuse_third(self) -> None:
        """Raise ``NotImplementedError`` where the next derivative would be a third one."""
        # Without this torch would leave it out with no more than a warning.
        if self.grad is not None and _some(self.tangents):
            raise NotImplementedError(
                f"the fused {self.description[0]} has first and second derivatives only;"
                " use the torch backend for third ones"
            )


def pulled_back(
    call: FusedCall, wanted: Sequence[bool], cotangents: Sequence[Tensor | None]
) -> FusedResults:
    """The derivatives of <cotangents, results> by grad, the three tangents and the three inputs:
    seven, None for those not ``wanted``."""
    call.refuse_third()
    by_grad, by_tangents, by_inputs = wanted[0], wanted[1:4], wanted[4:7]
    given = [one if needed else None for needed, one in zip(call.needs, cotangents, strict=True)]
    if not _some(given):
        return [None] * 7
    if call.grad is not None:
        first, *others = call.results(needs=[by_grad, *by_inputs], tangents=given[1:])
        return [first, None, None, None, *others]
    of_inputs = call.results(needs=[False, *by_inputs], grad=given[0])
    of_tangents: FusedResults = [None] * 4
    if _some(call.tangents):
        # The output along tangents is linear in them.
        of_tangents = call.results(needs=[False, *by_tangents], grad=given[0], tangents=[None] * 3)
    return [None, *of_tangents[1:], *of_inputs[1:]]


def pushed_forward(call: FusedCall, along: FusedCall) -> FusedResults:
    """The change of the results where grad, tangents and inputs change ``along`` those given
    there."""
    call.refuse_third()
    terms: list[FusedResults] = []
    if _some(call.tangents):
        if _some(along.tangents):
            terms.append(call.results(tangents=along.tangents))
        for place, direction in enumerate(along.inputs):
            others = _replaced(call.tangents, place, None)
            if direction is not None and _some(others):
                inputs = _replaced(call.inputs, place, direction)
                terms.append(call.results(inputs=inputs, tangents=others))
    else:
        if along.grad is not None:
            terms.append(call.results(grad=along.grad))
        if _some(along.inputs):
            terms.append(call.results(tangents=along.inputs))
    return [_sum(parts) for parts in zip(*terms, strict=True)] or [None] * 4


def batched(info: Any, in_dims: Sequence[Any], *arguments: Any) -> tuple[Any, Any]:
    """A batch of calls as one, in which the nodes and edges of the second follow those of the first
    (the rule of ``torch.vmap``)."""
    call, size = FusedCall.of(arguments), info.batch_size
    dims: Any = FusedCall.of(in_dims)

    def spread(tensor: Tensor, dim: int | None) -> Tensor:
        if dim is None:
            return tensor.unsqueeze(0).expand(size, *tensor.shape)
        return tensor.movedim(dim, 0)

    def joined(tensor: Tensor | None, dim: int | None) -> Tensor | None:
        return None if tensor is None else spread(tensor, dim).flatten(0, 1)

    edges = spread(call.edge_index, dims.edge_index)
    nodes = spread(call.inputs[0], dims.inputs[0]).shape[1]
    offsets = nodes * torch.arange(size, device=edges.device).reshape(-1, 1, 1)
    # What names no node must not name one of the next call.
    inside = (edges >= 0) & (edges < nodes)
    found = call.results(
        grad=joined(call.grad, dims.grad),
        tangents=[joined(*pair) for pair in zip(call.tangents, dims.tangents, strict=True)],
        inputs=[joined(*pair) for pair in zip(call.inputs, dims.inputs, strict=True)],
        edge_index=torch.where(inside, edges + offsets, -1).transpose(0, 1).flatten(1),
    )
    counts = (nodes, nodes, edges.shape[-1], edges.shape[-1])
    results = tuple(
        call.inputs[0].new_empty(0) if one is None else torch.unflatten(one, 0, (size, count))
        for one, count in zip(found, counts, strict=True)
    )
    return results, tuple(None if one is None else 0 for one in found)


def _some(tensors: Sequence[Tensor | None]) -> bool:
    return any(one is not None for one in tensors)


def _replaced(tensors: Sequence[Any], place: int, one: Tensor | None) -> list[Any]:
    return [*tensors[:place], one, *tensors[place + 1 :]]


def _sum(parts: Sequence[Tensor | None]) -> Tensor | None:
    known = [one for one in parts if one is not None]
    return sum(known[1:], known[0]) if known else None
