"""Which rotations a measurement draws, and which samples it takes where it does not take all."""

from __future__ import annotations

import torch
from torch import Tensor

from equivbench.errors import UsageError
from equivbench.specs import Group
from equivbench.symmetry.rotations import octahedral_rotations, random_rotations


def draw_rotations(group: Group, draws: int, samples: int, seed: int) -> tuple[Tensor, bool]:
    """([draws, samples, 3, 3] float64, whether they are the whole group).

    ``so3``: independent Haar draws. ``octahedral``: independent draws from the 24, or for ``draws``
    >= 24 each of them once.
    """
    if group not in ("so3", "octahedral"):
        raise UsageError(f"group {group!r} is not one of so3, octahedral")
    if draws < 2:
        raise UsageError(f"an equivariance error needs at least 2 rotations, not {draws}")
    generator = torch.Generator().manual_seed(seed)
    if group == "so3":
        flat = random_rotations(draws * samples, generator=generator, dtype=torch.float64)
        return flat.reshape(draws, samples, 3, 3), False
    elements = octahedral_rotations(torch.float64)
    if draws >= len(elements):
        return elements[:, None].expand(-1, samples, 3, 3), True
    return elements[torch.randint(len(elements), (draws, samples), generator=generator)], False


def spread(groups: Tensor, samples: int | None, seed: int = 0) -> Tensor:
    """Indices [n] of ``samples`` chosen by ``seed``: every group once, in a random order, before
    any twice. None: all."""
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed))
    if samples is None or samples >= len(groups):
        return torch.arange(len(groups))
    if samples < 1:
        raise UsageError(f"at least 1 sample is needed, not {samples}")
    by_group = order[groups[order].sort(stable=True).indices]
    sorted_groups = groups[by_group]
    first = torch.searchsorted(sorted_groups, sorted_groups)
    turn = torch.empty_like(order)
    turn[by_group] = torch.arange(len(order)) - first
    return order[turn[order].sort(stable=True).indices][:samples].sort().values
