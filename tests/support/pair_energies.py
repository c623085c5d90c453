"""An energy of pairs of atoms, and foreign networks of every kind that all compute it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

ELEMENTS = (1, 6, 7, 8, 16)


def pair_energy(z: Tensor, pos: Tensor, batch: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """[molecules] sum over pairs of the product of charges times a Gaussian of the distance."""
    square = (pos[:, None] - pos).square().sum(2)
    same = (batch[:, None] == batch) & ~torch.eye(len(z), dtype=torch.bool)
    strength = (z[:, None] * z).to(pos) * torch.exp(-square)
    by_atom = weight * strength.where(same, 0.0).sum(1) / 2
    return by_atom.new_zeros(int(batch[-1]) + 1).index_add(0, batch, by_atom)


def pair_forces(z: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
    """[atoms, 3] minus its gradient."""
    at = pos.clone().requires_grad_(True)
    with torch.enable_grad():
        return -torch.autograd.grad(pair_energy(z, at, batch).sum(), at)[0]


class Pairs(nn.Module):
    """Like those of PyG: called with z, pos and batch, one row of one number a molecule."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor | None = None) -> Any:
        assert batch is not None
        return pair_energy(z, pos, batch, self.weight)[:, None]


class ByAtom(Pairs):
    """Energies of atoms, in an object's attribute."""

    class Found(NamedTuple):
        features: Tensor
        node_energy: Tensor

    def forward(self, numbers: Tensor, pos: Tensor, batch: Tensor) -> Any:
        energy = pair_energy(numbers, pos, batch)
        share = energy / torch.bincount(batch)
        return ByAtom.Found(pos, share[batch][:, None])


class Dense(Pairs):
    """Padded molecules of element types, -1 where there is no atom; a tuple in and out, in Hartree
    and Bohr."""

    def forward(self, species_coordinates: tuple[Tensor, Tensor]) -> Any:
        from equivbench.tasks.forcefield.table import BOHR, HARTREE

        species, coordinates = species_coordinates
        there = species >= 0
        z = torch.tensor(ELEMENTS)[species.clamp(min=0)]
        rows = torch.arange(len(z)).repeat_interleave(there.sum(1))
        energy = pair_energy(z[there], coordinates[there] * BOHR, rows) / HARTREE
        return species, energy


class DenseForces(Pairs):
    """Forces of padded molecules, called by keyword with names of its own."""

    def forward(self, Z: Tensor, R: Tensor, here: Tensor) -> Any:
        rows = torch.arange(len(Z)).repeat_interleave(here.sum(1))
        forces = torch.zeros_like(R)
        forces[here] = pair_forces(Z[here], R[here], rows)
        return forces


class Inside(Pairs):
    """Differentiates by itself, as NequIP, MACE and schnetpack do; one mapping in and out."""

    def forward(self, data: Mapping[str, Tensor]) -> Any:
        data["xyz"].requires_grad_(True)
        energy = pair_energy(data["charges"], data["xyz"], data["index"], self.weight)
        (slope,) = torch.autograd.grad(energy.sum(), data["xyz"], create_graph=self.training)
        return {"energy": energy, "forces": -slope, "stress": None}
