"""The elements of a group under which samples are judged: independent draws, some or all of a
finite group, or the points of a quadrature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from equivbench.errors import UsageError
from equivbench.specs import Group
from equivbench.symmetry.quadrature import quadrature_degree, rotation_quadrature
from equivbench.symmetry.rotations import octahedral_rotations, random_orthogonal

MOST_DRAWS = 10_000_000
"""Draws for all samples together: their matrices take 720 MB."""
_SEEDS = 1 << 32


@dataclass(frozen=True)
class Elements:
    """The elements for each sample, and how averages over them are made."""

    group: Group
    matrices: Tensor
    """[n, samples, 3, 3] float64."""
    drawn_from: int | None = None
    """Size of the finite group of which they are different elements, drawn without replacement;
    None: they are independent draws, or a quadrature."""
    weights: Tensor | None = None
    """[n] of a quadrature, whose points all samples share."""

    def __len__(self) -> int:
        return len(self.matrices)

    def average(self, values: Tensor) -> Tensor:
        """[...] the average of ``values`` [n, ...] over the elements."""
        if self.weights is None:
            return values.mean(0)
        average: Tensor = torch.tensordot(self.weights.to(values), values, dims=1)
        return average


def elements_for(group: Group, rotations: int | str, samples: int, seed: int) -> Elements:
    """Elements of ``group`` for each of ``samples``.

    A number is that many draws. ``so3``: independent Haar draws. ``o3``: the same, each turned
    inside out with probability 1/2. ``octahedral``: for each sample different ones of the 24, all
    of them for 24 or more. ``quadrature:DEGREE``: the points of that quadrature over ``so3`` or
    ``o3`` (:func:`equivbench.symmetry.quadrature.rotation_quadrature`), the same for every sample
    and ``seed``.
    """
    if group not in get_args(Group):
        raise UsageError(f"group {group!r} is not one of {', '.join(get_args(Group))}")
    degree = quadrature_degree(rotations)
    if degree is not None:
        points = rotation_quadrature(degree, group)
        matrices = points.rotations[:, None].expand(-1, samples, 3, 3)
        return Elements(group, matrices, weights=points.weights)
    draws = int(rotations)
    if draws < 2:
        raise UsageError(f"an equivariance error needs at least 2 rotations, not {draws}")
    if draws * samples > MOST_DRAWS:
        raise UsageError(
            f"{draws} rotations of each of {samples} samples are more than the {MOST_DRAWS:,} that "
            "there can be; ask for fewer rotations or samples"
        )
    if not 0 <= seed < _SEEDS:
        raise UsageError(f"a seed is a whole number from 0 to 2^32 - 1, not {seed}")
    generator = torch.Generator().manual_seed(seed)
    if group != "octahedral":
        flat = random_orthogonal(draws * samples, group, generator)
        return Elements(group, flat.reshape(draws, samples, 3, 3))
    elements = octahedral_rotations(torch.float64)
    if draws >= len(elements):
        return Elements(group, elements[:, None].expand(-1, samples, 3, 3), len(elements))
    shuffled = torch.rand(samples, len(elements), generator=generator).argsort(dim=1)
    return Elements(group, elements[shuffled[:, :draws].T], len(elements))
