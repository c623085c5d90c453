"""Into the frames of edges and back as two differentiable torch operators, for eager mode,
torch.func and torch.compile alike.

With S = sum over edges, rows, ends and channels of w a . (D b), linear in the weights w, in
features a in the edges' frames, in the Wigner matrices D and in features b of the nodes, the first
operator is dS/da and the second, with one number for all weights of an edge, dS/db; everything else
follows as for the operations along edges (:mod:`equivbench.kernels.fused.edge_operator`). No
features of an edge that are not turned, and none that are turned back, are ever stored.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from equivbench.kernels.fused import native_frames, triton_frames
from equivbench.kernels.fused.arguments import Shape, check_arguments
from equivbench.kernels.fused.derivatives import FusedCall, FusedOperator
from equivbench.kernels.fused.registration import register
from equivbench.kernels.operations.edge_frames import FrameTurn

INTO, BACK = "turn into frames", "turn back"
"""What the operators are called in errors."""


def into_frames(
    turn: FrameTurn, frames: Tensor, weights: Tensor, x: Tensor, edge_index: Tensor
) -> Tensor:
    """[edges, edge_size] of ``turn``: the features ``x`` [nodes, node_size] of the ends of each
    edge by its Wigner matrix, whose elements are ``frames`` [edges, frame_size], times ``weights``
    [edges, weight_size] of each degree, |m|, end and channel.

    Twice differentiable by all three, in reverse and in forward mode; float32 or float64, all of
    the same type; under autocast float32. Raises ``ValueError`` for tensors of other shapes, types
    or devices, ``NotImplementedError`` for a third derivative and, on a CPU, ``IndexError`` for an
    edge to a node that is not there. Results are the same bits at the same number of threads.
    """
    output: Tensor = torch.ops.equivbench.fused_into_frames(
        [True, *[False] * 3], *[None] * 4, frames, weights, x, edge_index, INTO, _numbers(turn)
    )[0]
    return output


def turned_back(
    turn: FrameTurn, frames: Tensor, scales: Tensor, z: Tensor, edge_index: Tensor, nodes: int
) -> Tensor:
    """[nodes, node_size] of ``turn``: the features ``z`` [edges, edge_size] of each edge times its
    number in ``scales`` [edges, 1], by the transpose of its Wigner matrix, summed at the centres.

    As :func:`into_frames`.
    """
    # How many rows the output has: without columns, so that nothing is read.
    rows = z.new_empty(nodes, 0)
    output: Tensor = torch.ops.equivbench.fused_turn_back(
        [True, *[False] * 4], *[None] * 5, rows, frames, scales, z, edge_index, BACK, _numbers(turn)
    )[0]
    return output


def _numbers(turn: FrameTurn) -> list[int]:
    """The fields of ``turn``, in their order."""
    return [turn.channels, turn.ends, turn.lmax, turn.mmax, turn.degree, turn.order]


@lru_cache(maxsize=256)
def _turn(name: str, numbers: tuple[int, ...]) -> FrameTurn:
    """That with these fields; raises ``ValueError`` where there is none."""
    if name in (INTO, BACK) and len(numbers) == 6:
        channels, ends, lmax, mmax, degree, order = numbers
        right = 0 <= order <= min(mmax, degree) and degree <= lmax
        if right and channels > 0 and ends in ((1, 2) if name == INTO else (1,)):
            return FrameTurn(channels, ends, lmax, mmax, degree, order)
    raise ValueError(f"there is no fused {name} of the numbers {list(numbers)}")


def _described(call: FusedCall) -> FrameTurn:
    name, numbers = call.description
    return _turn(name, tuple(numbers))


def _shapes(call: FusedCall, turn: FrameTurn) -> tuple[dict[str, Shape], Shape]:
    """Those of the inputs by name, and of the output."""
    edges = call.indices.shape[-1:].numel()
    back = call.operator is _BACK
    nodes = call.inputs[0 if back else 2].shape[:1].numel()
    of_edges, of_nodes = (edges, turn.edge_size), (nodes, turn.node_size)
    frames = (edges, turn.frame_size)
    if back:
        scales = (edges, 1)
        return {"rows": (nodes, 0), "frames": frames, "scales": scales, "z": of_edges}, of_nodes
    return {"frames": frames, "weights": (edges, turn.weight_size), "x": of_nodes}, of_edges


def _run(operator: FusedOperator, *arguments: Any) -> tuple[Tensor, ...]:
    call = FusedCall.of(operator, arguments)
    turn, back = _described(call), operator is _BACK
    inputs, output = _shapes(call, turn)
    check_arguments(call, inputs, output, ("edge_index", (2, call.indices.shape[-1:].numel())))
    made = _fake(operator, *arguments)
    wanted = [one if needed else None for needed, one in zip(call.needs, made, strict=True)]
    # The first input of the way back holds nothing but a number of rows.
    some = slice(1, None) if back else slice(None)
    given, tangents, results = call.inputs[some], call.tangents[some], wanted[1:][some]
    nodes = call.inputs[0 if back else 2].shape[0]
    results = [wanted[0], *results]
    launch = triton_frames.launch if call.indices.is_cuda else native_frames.launch
    launch(turn, back, nodes, call.grad, given, tangents, results, call.indices)
    return made


def _fake(operator: FusedOperator, *arguments: Any) -> tuple[Tensor, ...]:
    """Tensors for the derivatives by grad and the inputs, empty where not needed: what
    torch.compile traces in place of the operator."""
    call = FusedCall.of(operator, arguments)
    turn, first = _described(call), call.inputs[0]
    if operator is _BACK:
        output: Any = (first.shape[0], turn.node_size)
    else:
        output = (first.shape[0], turn.edge_size)
    shapes = (output, *(one.shape for one in call.inputs))
    return tuple(
        first.new_empty(shape if needed else 0)
        for needed, shape in zip(call.needs, shapes, strict=True)
    )


def _schema(*inputs: str) -> str:
    tensors = ["grad?", *(f"by_{name}?" for name in inputs), *inputs, "edge_index"]
    typed = [f"Tensor{'?' * one.endswith('?')} {one.removesuffix('?')}" for one in tensors]
    results = ", ".join(["Tensor"] * (1 + len(inputs)))
    return f"(bool[] needs, {', '.join(typed)}, str name, int[] numbers) -> ({results})"


def _registered(name: str, indexed: int, *inputs: str) -> FusedOperator:
    operator = FusedOperator(
        name,
        lambda *arguments: _run(operator, *arguments),
        lambda *arguments: _fake(operator, *arguments),
        indexed=indexed,
    )
    register(operator, _schema(*inputs))
    return operator


_INTO = _registered("fused_into_frames", 2, "frames", "weights", "x")
_BACK = _registered("fused_turn_back", 0, "rows", "frames", "scales", "z")
