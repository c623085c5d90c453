"""Random numbers, bonds, frames and neighbour lists that the inputs of operations are drawn as, in
float64 on the CPU."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from equivbench.errors import UsageError
from equivbench.symmetry.rotations import random_rotations


def normal(generator: Generator, *shape: int) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def uniform(generator: Generator, *shape: int) -> Tensor:
    """Numbers between 0 and 1."""
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def bonds(generator: Generator, *shape: int) -> Tensor:
    """[edges, 3] vectors of 1 to 5 A in all directions."""
    vectors = normal(generator, *shape)
    length = 1 + 4 * uniform(generator, shape[0], 1)
    unit: Tensor = vectors / vectors.norm(dim=1, keepdim=True)
    return unit * length


def bonds_off_axis(generator: Generator, *shape: int) -> Tensor:
    """Bonds, with x, y, z turned to y, z, x where y is more than 0.9 of the length."""
    vectors = bonds(generator, *shape)
    near = vectors[:, 1].abs() > 0.9 * vectors.norm(dim=1)
    return torch.where(near[:, None], vectors.roll(1, dims=1), vectors)


def frames(generator: Generator, *shape: int) -> Tensor:
    """[..., 3, 3] rotations."""
    count = math.prod(shape[:-2])
    return random_rotations(count, generator=generator, dtype=torch.float64).view(shape)


def molecules(generator: Generator, sizes: Mapping[str, int]) -> Tensor:
    """[atoms] int64: each atom's molecule."""
    return torch.arange(sizes["molecules"]).repeat_interleave(sizes["atoms"])


def elements(generator: Generator, sizes: Mapping[str, int]) -> Tensor:
    """[nodes] int64: each node's chemical element, all equally likely."""
    return torch.randint(sizes["elements"], (sizes["nodes"],), generator=generator)


def neighbour_pairs(generator: Generator, sizes: Mapping[str, int]) -> Tensor:
    """[2, edges] int64, like the neighbour list of molecules one after the other: near atoms only,
    both directions.

    Pairs i < j in order, then the same pairs turned round, as a half list gives them: not sorted by
    centre. Raises ``UsageError`` where there are not that many pairs.
    """
    nodes, edges = sizes["nodes"], sizes["edges"]
    half = edges // 2
    # Each atom may meet the atoms up to `reach` further on; twice as many candidates as pairs keep
    # the degrees uneven.
    reach = min(nodes - 1, max(1, -(-2 * half // max(1, nodes))))
    first = torch.arange(nodes).repeat_interleave(reach)
    second = first + torch.arange(1, reach + 1).repeat(nodes)
    candidates = torch.stack([first, second])[:, second < nodes]
    if edges % 2 or half > candidates.shape[1]:
        raise UsageError(
            f"{nodes} nodes have no {edges} edges that come in both directions;"
            " choose an even, smaller number"
        )
    chosen = torch.randperm(candidates.shape[1], generator=generator)[:half].sort().values
    pairs = candidates[:, chosen]
    return torch.cat([pairs, pairs.flip(0)], dim=1)
