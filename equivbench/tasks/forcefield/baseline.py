"""The best linear predictor of forces: central pair forces, linear in a radial basis for each pair
of elements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from equivbench.kernels.neighbours import edges_within

if TYPE_CHECKING:
    from equivbench.tasks.base import Split

CUTOFF = 5.0
"""A: as far as the networks of the small presets see."""
_CENTRES = 12
_NEAREST = 0.7
"""A: no two atoms are closer, so no basis function is centred below."""
_FITTED = 512
"""Samples that the coefficients are fitted on: some 30,000 force components, for 12 coefficients a
pair of elements."""
_RIDGE = 1e-4
"""Of the normal matrix's mean diagonal: picks the least coefficients where pairs of elements are
rare or missing."""


class PairForces(nn.Module):
    """F_i = sum_j sum_k c[z_i z_j, k] phi_k(r_ij) (r_i - r_j) / r_ij, phi_k Gaussians of the
    distance up to ``CUTOFF``.

    O(3)-equivariant and conservative. ``coefficients`` is [pairs of elements * basis functions],
    eV/A, and ``kinds`` [256] maps atomic numbers to elements counted from 0; those that the fit did
    not see count as one.
    """

    coefficients: Tensor
    kinds: Tensor

    def __init__(self, coefficients: Tensor, kinds: Tensor) -> None:
        super().__init__()
        self.register_buffer("coefficients", coefficients)
        self.register_buffer("kinds", kinds)

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor, **_: Tensor) -> dict[str, Tensor]:
        """``forces`` [atoms, 3] eV/A."""
        target, column, values, directions = _terms(self.kinds[z], pos, batch)
        strength = (values * self.coefficients.to(pos)[column]).sum(1)
        return {
            "forces": torch.zeros_like(pos).index_add(0, target, strength[:, None] * directions)
        }


def fit_pair_forces(split: Split, seed: int) -> PairForces:
    """Least squares over the force components of at most 512 samples of ``split``, drawn with
    ``seed``."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:_FITTED]
    elements = torch.unique(
        torch.cat([split.collate(indices)["z"] for indices in torch.split(order, 64)])
    )
    kinds = torch.full((256,), len(elements))
    kinds[elements] = torch.arange(len(elements))
    size = (len(elements) + 1) * (len(elements) + 2) // 2 * _CENTRES
    normal, right = (
        torch.zeros(size, size, dtype=torch.float64),
        torch.zeros(size, dtype=torch.float64),
    )
    for indices in torch.split(order, 64):
        batch = split.collate(indices)
        target, column, values, directions = _terms(
            kinds[batch["z"]], batch["pos"].double(), batch["batch"]
        )
        forces = batch["forces"].double()
        for axis in range(3):
            design = torch.zeros(len(forces) * size, dtype=torch.float64)
            cells = target[:, None] * size + column
            design.index_add_(0, cells.flatten(), (values * directions[:, axis, None]).flatten())
            design = design.reshape(len(forces), size)
            normal += design.T @ design
            right += design.T @ forces[:, axis]
    normal.diagonal().add_(_RIDGE * normal.diagonal().mean())
    return PairForces(torch.linalg.solve(normal, right), kinds)


def _terms(kinds: Tensor, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(target atom [edges], coefficient [edges, K], basis function [edges, K], unit vector from
    source to target [edges, 3])."""
    source, target = edges_within(pos, batch, CUTOFF, None)
    vectors = pos[target] - pos[source]
    lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    centres = torch.linspace(_NEAREST, CUTOFF, _CENTRES, dtype=pos.dtype, device=pos.device)
    values = torch.exp(-0.5 * ((lengths - centres) / (centres[1] - centres[0])).square())
    # Zero with its slope at the cutoff.
    values = values * (1 - (lengths / CUTOFF).square()).square()
    low, high = (
        torch.minimum(kinds[source], kinds[target]),
        torch.maximum(kinds[source], kinds[target]),
    )
    pair = high * (high + 1) // 2 + low
    column = pair[:, None] * _CENTRES + torch.arange(_CENTRES, device=pos.device)
    return target, column, values, vectors / lengths
