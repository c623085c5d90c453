"""Random inputs of a case, in the stated layout: the same numbers for every backend, dtype and device."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Generator, Tensor

from equivbench.errors import UsageError
from equivbench.kernels.cases import Case
from equivbench.kernels.operations import Convolution, Operation


def make_inputs(case: Case, *, dtype: torch.dtype, device: torch.device, seed: int = 0) -> dict[str, Tensor]:
    """The inputs that ``case.operation`` states, of order one, none of which requires a gradient.

    They are drawn in float64 on the CPU and fixed by ``seed`` alone; floating-point ones are then cast to ``dtype``.
    """
    drawn = draw(case.operation, case, torch.Generator().manual_seed(seed))
    return {
        name: tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in drawn.items()
    }


@singledispatch
def draw(operation: Operation, case: Case, generator: Generator) -> dict[str, Tensor]:
    """Float64 inputs of ``operation`` at the sizes of ``case``; ``draw.register`` adds an operation."""
    raise UsageError(
        f"kernel operation {operation.name!r} has no inputs; register a function with equivbench.kernels.inputs.draw"
    )


@draw.register
def _convolution(operation: Convolution, case: Case, generator: Generator) -> dict[str, Tensor]:
    nodes, edges = case.sizes["nodes"], case.sizes["edges"]
    # Normal numbers, not the harmonics of directions: their constant first column would hide a kernel that ignores it.
    return {
        "x": normal(generator, nodes, operation.source_size),
        "harmonics": normal(generator, edges, (operation.edge_lmax + 1) ** 2),
        "weights": normal(generator, edges, operation.weight_size),
        "edge_index": neighbour_pairs(generator, nodes, edges),
    }


def normal(generator: Generator, *shape: int) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def neighbour_pairs(generator: Generator, nodes: int, edges: int) -> Tensor:
    """[2, edges] int64, like the neighbour list of molecules one after the other: near atoms only, both directions.

    Pairs i < j in order, then the same pairs turned round, as a half list gives them: not sorted by centre. Raises
    ``UsageError`` where there are not that many pairs.
    """
    half = edges // 2
    # Each atom may meet the atoms up to `reach` further on; twice as many candidates as pairs keep the degrees uneven.
    reach = min(nodes - 1, max(1, -(-2 * half // max(1, nodes))))
    first = torch.arange(nodes).repeat_interleave(reach)
    second = first + torch.arange(1, reach + 1).repeat(nodes)
    candidates = torch.stack([first, second])[:, second < nodes]
    if edges % 2 or half > candidates.shape[1]:
        raise UsageError(f"{nodes} nodes have no {edges} edges that come in both directions; choose an even, smaller number")
    chosen = torch.randperm(candidates.shape[1], generator=generator)[:half].sort().values
    pairs = candidates[:, chosen]
    return torch.cat([pairs, pairs.flip(0)], dim=1)
