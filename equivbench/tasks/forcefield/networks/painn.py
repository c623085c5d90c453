"""PaiNN: a cheap first-order O(3)-equivariant network with scalar and vector features (Schuett et
al. 2021, 2102.03150)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from equivbench.tasks.forcefield.networks.graph import (
    ELEMENTS,
    edge_vectors,
    mlp,
    radial_basis,
    sum_by,
)


def vector_norm(v: Tensor) -> Tensor:
    """Length over the axis of x, y, z: ``v`` [atoms, 3, F] to [atoms, F]; smooth at zero."""
    return (v.square().sum(1) + 1e-8).sqrt()


class Message(nn.Module):
    """Equations 7 and 8: scalars and vectors gathered from the neighbours through filters of the
    distance."""

    def __init__(self, features: int, radial: int, *, first: bool) -> None:
        super().__init__()
        # The first layer has no vectors to pass on yet, so it has no gate for them.
        self.gates = 2 if first else 3
        self.context = mlp(features, features, self.gates * features)
        self.filter = nn.Linear(radial + 1, self.gates * features, bias=False)

    def forward(
        self, s: Tensor, v: Tensor | None, basis: Tensor, direction: Tensor, edge_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(change of s [atoms, F], change of v [atoms, 3, F])."""
        source, target = edge_index[0], edge_index[1]
        gates = self.context(s).index_select(0, source) * self.filter(basis)
        gates = gates.unflatten(-1, (self.gates, -1))
        vectors = gates[:, 1:2] * direction.unsqueeze(-1)
        if v is not None:
            vectors = vectors + gates[:, 2:3] * v.index_select(0, source)
        return sum_by(target, gates[:, 0], s.shape[0]), sum_by(target, vectors, s.shape[0])


class Update(nn.Module):
    """Equations 9 and 10: scalars and vectors of one atom exchange information through norms and
    inner products."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.mix = nn.Linear(features, 2 * features, bias=False)
        self.gate = mlp(2 * features, features, 3 * features)

    def forward(self, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """(change of s [atoms, F], change of v [atoms, 3, F])."""
        left, right = self.mix(v).chunk(2, dim=-1)
        scalar, inner, vector = self.gate(torch.cat([s, vector_norm(right)], dim=-1)).chunk(
            3, dim=-1
        )
        return scalar + inner * (left * right).sum(1), vector.unsqueeze(1) * left


class PaiNN(nn.Module):
    """Energies and direct forces from a gated equivariant readout.

    ``forward(z, pos, batch, edge_index, n_atoms)`` returns ``forces`` [atoms, 3] eV/A and
    ``energy`` [molecules] eV.
    """

    def __init__(self, features: int, layers: int, radial: int, cutoff: float) -> None:
        super().__init__()
        self.requires = {"edge_index": cutoff, "n_atoms": 1.0}
        self.cutoff, self.radial = cutoff, radial
        self.embedding = nn.Embedding(ELEMENTS, features)
        self.messages = nn.ModuleList(
            Message(features, radial, first=layer == 0) for layer in range(layers)
        )
        self.updates = nn.ModuleList(Update(features) for _ in range(layers))
        self.energy = mlp(features, features // 2, 1)
        self.mix = nn.Linear(features, 2 * features, bias=False)
        self.gate = mlp(2 * features, features, features)
        self.force = nn.Linear(features, 1, bias=False)

    def forward(
        self, z: Tensor, pos: Tensor, batch: Tensor, edge_index: Tensor, n_atoms: Tensor
    ) -> dict[str, Tensor]:
        """Forces [atoms, 3] eV/A and energies [molecules] eV."""
        vectors, distance = edge_vectors(pos, edge_index)
        basis = radial_basis(distance, self.cutoff, self.radial)
        direction = vectors / distance.unsqueeze(-1)
        s = self.embedding(z)
        v: Tensor | None = None
        for message, update in zip(self.messages, self.updates, strict=True):
            ds, dv = message(s, v, basis, direction, edge_index)
            s, v = s + ds, dv if v is None else v + dv
            ds, dv = update(s, v)
            s, v = s + ds, v + dv
        assert v is not None
        left, right = self.mix(v).chunk(2, dim=-1)
        gate = self.gate(torch.cat([s, vector_norm(right)], dim=-1))
        forces = self.force(gate.unsqueeze(1) * left).squeeze(-1)
        return {
            "forces": forces,
            "energy": sum_by(batch, self.energy(s).squeeze(-1), n_atoms.shape[0]),
        }


def build(config: Mapping[str, Any]) -> PaiNN:
    """Config: ``features``, ``layers``, ``radial`` (basis functions), ``cutoff`` (A)."""
    return PaiNN(config["features"], config["layers"], config["radial"], config["cutoff"])
