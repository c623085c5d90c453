"""The derivatives of our operators, in reverse and forward, and a batch of calls as one: each in
terms of the operator itself.

An operator computes a form S of the output's gradient g and of its inputs, linear in g and in most
inputs: the output is dS/dg, the first derivatives are those by the inputs, and along *tangents* of
the inputs it gives what the sum T of <tangent, first derivative> has for derivatives. So those of
any result are results for other arguments, and forward mode needs no kernel of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

FusedResults = list[Tensor | None]
"""By grad and by each input; None for what is not asked for, or zero."""


@dataclass(frozen=True, eq=False)
class FusedOperator:
    """One of our operators in ``torch.ops.equivbench``.

    Its arguments are ``needs``, grad, a tangent for each input or None, the inputs, an index, and
    the name and numbers of the operation; its results the derivatives by grad and by each input, an
    empty tensor for each that ``needs`` does not ask. Without tangents they are those of S, else of
    T. Only the one by grad, which is the output, or the output along the tangents, can do without
    ``grad``.
    """

    name: str
    run: Callable[..., tuple[Tensor, ...]]
    """Computes the results."""
    fake: Callable[..., tuple[Tensor, ...]]
    """Empty results of their shapes."""
    indexed: int | None = 0
    """The input whose rows the index names; None where a batch of calls cannot be one call. Rows of
    the output are those of the first input."""
    cubic: int | None = None
    """The one input, if any, that S is not linear in but of degree three at most."""

    def __call__(self, *arguments: Any) -> tuple[Tensor, ...]:
        """The results, with their derivatives."""
        found: tuple[Tensor, ...] = getattr(torch.ops.equivbench, self.name)(*arguments)
        return found


class FusedCall(NamedTuple):
    """One call of an operator, or what belongs to each of its arguments, in groups."""

    operator: FusedOperator
    needs: Sequence[bool]
    grad: Tensor | None
    tangents: Sequence[Tensor | None]
    """In place of the inputs."""
    inputs: Sequence[Tensor]
    indices: Tensor
    description: Sequence[Any]
    """Name and numbers of the operation."""

    @classmethod
    def of(cls, operator: FusedOperator, arguments: Sequence[Any]) -> FusedCall:
        """The arguments in groups."""
        needs, grad, *others = arguments
        *tensors, index, name, numbers = others
        count = len(tensors) // 2
        return cls(operator, needs, grad, tensors[:count], tensors[count:], index, (name, numbers))

    def results(self, **changes: Any) -> FusedResults:
        """What the operator gives after ``changes`` to the call."""
        call = self._replace(**changes)
        if not any(call.needs):
            return [None] * len(call.needs)
        found = call.operator(
            list(call.needs),
            call.grad,
            *call.tangents,
            *call.inputs,
            call.indices,
            *call.description,
        )
        return [one if needed else None for needed, one in zip(call.needs, found, strict=True)]

    def moved(self, place: int, direction: Tensor) -> FusedResults:
        """The change of the output along tangents where the input at ``place`` moves along
        ``direction``."""
        none: list[Tensor | None] = [None] * len(self.tangents)
        others = _replaced(self.tangents, place, None)
        if place != self.operator.cubic:
            if not _some(others):
                return [None, *none]
            return self.results(inputs=_replaced(self.inputs, place, direction), tangents=others)
        terms: list[FusedResults] = []
        if self.tangents[place] is not None:
            own = self._replace(tangents=_replaced(none, place, self.tangents[place]))
            terms.append(own._bent(place, direction))
        for other, tangent in enumerate(others):
            if tangent is not None:
                # S is linear in that input: put the tangent in its place and move this one.
                inputs = _replaced(self.inputs, other, tangent)
                along = _replaced(none, place, direction)
                terms.append(self.results(inputs=inputs, tangents=along))
        return _sums(terms, len(self.needs))

    def refuse_third(self) -> None:
        """Raise ``NotImplementedError`` where the next derivative would be a third one."""
        # Without this torch would leave it out with no more than a warning.
        if self.grad is not None and _some(self.tangents):
            raise NotImplementedError(
                f"the fused {self.description[0]} has first and second derivatives only;"
                " use the torch backend for third ones"
            )

    def _bent(self, place: int, direction: Tensor) -> FusedResults:
        """As :meth:`moved`, by an input that the output along tangents is of degree two in: for
        such a function the difference over a step forward and one back is no approximation,
        whatever the step."""
        value = self.inputs[place]
        sizes = [one.square().sum(1, keepdim=True).sqrt() for one in (value, direction)]
        both = (sizes[0] > 0) & (sizes[1] > 0)
        # A step as long as the row itself, so that rounding takes nothing away.
        step = torch.where(both, sizes[0], 1.0) / torch.where(both, sizes[1], 1.0)
        forward, back = (
            self.results(inputs=_replaced(self.inputs, place, value + sign * step * direction))
            for sign in (1, -1)
        )
        return [
            None if one is None or other is None else (one - other) / (2 * step)
            for one, other in zip(forward, back, strict=True)
        ]


def pulled_back(
    call: FusedCall, wanted: Sequence[bool], cotangents: Sequence[Tensor | None]
) -> FusedResults:
    """The derivatives of <cotangents, results> by grad, the tangents and the inputs, None for those
    not ``wanted``."""
    call.refuse_third()
    count = len(call.inputs)
    by_grad, by_tangents, by_inputs = wanted[0], wanted[1 : 1 + count], wanted[1 + count :]
    given = [one if needed else None for needed, one in zip(call.needs, cotangents, strict=True)]
    none: list[None] = [None] * count
    if not _some(given):
        return [None, *none, *none]
    if call.grad is not None:
        first, *others = call.results(needs=[by_grad, *by_inputs], tangents=given[1:])
        return [first, *none, *others]
    of_inputs = call.results(needs=[False, *by_inputs], grad=given[0])
    of_tangents: FusedResults = [None, *none]
    if _some(call.tangents):
        # The output along tangents is linear in them.
        of_tangents = call.results(needs=[False, *by_tangents], grad=given[0], tangents=none)
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
            if direction is not None:
                terms.append(call.moved(place, direction))
    else:
        if along.grad is not None:
            terms.append(call.results(grad=along.grad))
        if _some(along.inputs):
            terms.append(call.results(tangents=along.inputs))
    return _sums(terms, len(call.needs))


def batched(
    operator: FusedOperator, info: Any, in_dims: Sequence[Any], *arguments: Any
) -> tuple[Any, Any]:
    """A batch of calls as one, in which the rows of the second follow those of the first, or, where
    that is no call, one after the other (the rule of ``torch.vmap``)."""
    call, size = FusedCall.of(operator, arguments), info.batch_size
    dims: Any = FusedCall.of(operator, in_dims)
    if operator.indexed is None:
        return _one_by_one(call, dims, size)

    def spread(tensor: Tensor, dim: int | None) -> Tensor:
        if dim is None:
            return tensor.unsqueeze(0).expand(size, *tensor.shape)
        return tensor.movedim(dim, 0)

    def joined(tensor: Tensor | None, dim: int | None) -> Tensor | None:
        return None if tensor is None else spread(tensor, dim).flatten(0, 1)

    rows = [spread(*pair).shape[1] for pair in zip(call.inputs, dims.inputs, strict=True)]
    named = rows[operator.indexed]
    index = spread(call.indices, dims.indices)
    offsets = named * torch.arange(size, device=index.device)
    offsets = offsets.reshape(-1, *[1] * (index.ndim - 1))
    # What names no row must not name one of the next call.
    inside = (index >= 0) & (index < named)
    found = call.results(
        grad=joined(call.grad, dims.grad),
        tangents=[joined(*pair) for pair in zip(call.tangents, dims.tangents, strict=True)],
        inputs=[joined(*pair) for pair in zip(call.inputs, dims.inputs, strict=True)],
        indices=torch.where(inside, index + offsets, -1).movedim(0, -2).flatten(-2),
    )
    results = tuple(
        call.inputs[0].new_empty(0) if one is None else torch.unflatten(one, 0, (size, count))
        for one, count in zip(found, (rows[0], *rows), strict=True)
    )
    return results, tuple(None if one is None else 0 for one in found)


def _one_by_one(call: FusedCall, dims: Any, size: int) -> tuple[Any, Any]:
    def taken(number: int, tensor: Tensor | None, dim: int | None) -> Any:
        return tensor if tensor is None or dim is None else tensor.select(dim, number)

    found = [
        call.results(
            grad=taken(number, call.grad, dims.grad),
            tangents=[
                taken(number, *pair) for pair in zip(call.tangents, dims.tangents, strict=True)
            ],
            inputs=[taken(number, *pair) for pair in zip(call.inputs, dims.inputs, strict=True)],
            indices=taken(number, call.indices, dims.indices),
        )
        for number in range(size)
    ]
    results = tuple(
        torch.stack([one for one in each if one is not None])
        if each[0] is not None
        else call.inputs[0].new_empty(0)
        for each in zip(*found, strict=True)
    )
    return results, tuple(None if one is None else 0 for one in found[0])


def _some(tensors: Sequence[Tensor | None]) -> bool:
    return any(one is not None for one in tensors)


def _replaced(tensors: Sequence[Any], place: int, one: Any) -> list[Any]:
    return [*tensors[:place], one, *tensors[place + 1 :]]


def _sums(terms: Sequence[FusedResults], count: int) -> FusedResults:
    """The sum of each of ``count`` results over ``terms``."""
    found: FusedResults = [None] * count
    for term in terms:
        found = [
            one if before is None else before if one is None else before + one
            for before, one in zip(found, term, strict=True)
        ]
    return found
