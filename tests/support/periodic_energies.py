"""Networks of energies of crystals whose symmetry is known, for ``eb.adapt(..., energy=True)``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from equivbench.kernels.periodic_neighbours import periodic_edges_within

CUTOFF = 4.0
"""A."""


class Images(nn.Module):
    """Energies of atoms from their distances to the images within the cutoff, where they end
    smoothly: equivariant, and a function of the crystal alone."""

    def forward(
        self,
        z: Tensor,
        pos: Tensor,
        batch: Tensor,
        edge_index: Tensor,
        cell: Tensor | None = None,
        cell_shifts: Tensor | None = None,
    ) -> Tensor:
        source, target = edge_index
        vectors = pos[source] - pos[target]
        lattice = torch.eye(3).to(pos).expand(int(batch[-1]) + 1, 3, 3)
        if cell is not None and cell_shifts is not None:
            lattice = self.lattice(cell)
            moved = torch.einsum("ek,eki->ei", cell_shifts.to(pos), lattice[batch[target]])
            vectors = vectors + moved
        left = 1 - vectors.square().sum(1) / CUTOFF**2
        strength = 1 + 0.02 * (z[source] + z[target]).to(pos)
        by_edge = strength * left**3 * self.anisotropy(vectors, lattice[batch[target]])
        return pos.new_zeros(len(pos)).index_add(0, target, by_edge)

    def lattice(self, cell: Tensor) -> Tensor:
        return cell

    def anisotropy(self, vectors: Tensor, lattice: Tensor) -> Tensor:
        return torch.ones_like(vectors[:, 0])


class AlongLattice(Images):
    """Bonds along the first lattice vector count more: that turns with the crystal."""

    def anisotropy(self, vectors: Tensor, lattice: Tensor) -> Tensor:
        along = torch.nn.functional.normalize(lattice[:, 0], dim=1)
        return 1 + 0.2 * (vectors * along).sum(1).square()


class AlongAxis(Images):
    """Bonds along x count more: that stays where it is."""

    def anisotropy(self, vectors: Tensor, lattice: Tensor) -> Tensor:
        return 1 + 0.2 * vectors[:, 0].square()


class Realigned(Images):
    """Takes the cell by its lengths and angles alone, with the first vector along x, as if it had
    not turned with the atoms."""

    def lattice(self, cell: Tensor) -> Tensor:
        return torch.linalg.cholesky(cell @ cell.mT)


def crystal_inputs(z: Tensor, pos: Tensor, cell: Tensor, cutoff: float = CUTOFF) -> dict[str, Any]:
    """One crystal as an adapted network takes it."""
    batch = torch.zeros(len(pos), dtype=torch.int64)
    pbc = torch.ones(1, 3, dtype=torch.bool)
    edges, shifts = periodic_edges_within(pos, batch, cell[None], pbc, cutoff)
    given = {"z": z, "pos": pos, "batch": batch, "cell": cell[None], "pbc": pbc}
    return {**given, "edge_index": edges, "cell_shifts": shifts}
