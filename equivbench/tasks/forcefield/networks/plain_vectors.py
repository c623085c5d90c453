"""PaiNN's trunk with unconstrained vectors: x, y, z are ordinary channels, and the operations on
them are general ones.

Layer by layer the twin of :mod:`equivbench.tasks.forcefield.networks.painn`: the same embedding,
radial basis, gated messages with the direction r_ij, residual updates and readouts; but gates and
filters see raw vectors, and one MLP mixes the 4 F scalar and vector channels of an atom in place of
norms, inner products and component-blind maps. Rotations must be learned.
"""

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


class Message(nn.Module):
    """Scalars and vectors gathered from the neighbours through filters of the relative vector."""

    def __init__(self, features: int, radial: int, *, first: bool) -> None:
        super().__init__()
        self.gates = 2 if first else 3
        self.context = mlp(features if first else 4 * features, features, self.gates * features)
        self.filter = nn.Linear(radial + 4, self.gates * features, bias=False)

    def forward(
        self, s: Tensor, v: Tensor | None, basis: Tensor, direction: Tensor, edge_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(change of s [atoms, F], change of v [atoms, 3, F])."""
        source, target = edge_index[0], edge_index[1]
        state = s if v is None else torch.cat([s, v.flatten(1)], dim=-1)
        gates = self.context(state).index_select(0, source) * self.filter(basis)
        gates = gates.unflatten(-1, (self.gates, -1))
        vectors = gates[:, 1:2] * direction.unsqueeze(-1)
        if v is not None:
            vectors = vectors + gates[:, 2:3] * v.index_select(0, source)
        return sum_by(target, gates[:, 0], s.shape[0]), sum_by(target, vectors, s.shape[0])


class PlainVectors(nn.Module):
    """Energies and direct forces of the unconstrained trunk; the call is that of ``PaiNN``."""

    def __init__(self, features: int, layers: int, radial: int, cutoff: float) -> None:
        super().__init__()
        self.requires = {"edge_index": cutoff, "n_atoms": 1.0}
        self.cutoff, self.radial = cutoff, radial
        self.embedding = nn.Embedding(ELEMENTS, features)
        self.messages = nn.ModuleList(
            Message(features, radial, first=layer == 0) for layer in range(layers)
        )
        self.updates = nn.ModuleList(
            mlp(4 * features, features, 4 * features) for _ in range(layers)
        )
        self.energy = mlp(4 * features, features // 2, 1)
        self.force = mlp(4 * features, features, 3)

    def forward(
        self, z: Tensor, pos: Tensor, batch: Tensor, edge_index: Tensor, n_atoms: Tensor
    ) -> dict[str, Tensor]:
        """Forces [atoms, 3] eV/A and energies [molecules] eV."""
        vectors, distance = edge_vectors(pos, edge_index)
        direction = vectors / distance.unsqueeze(-1)
        basis = radial_basis(distance, self.cutoff, self.radial)
        basis = torch.cat([basis, direction * basis[:, -1:]], dim=-1)
        s = self.embedding(z)
        v: Tensor | None = None
        state = s
        for message, update in zip(self.messages, self.updates, strict=True):
            ds, dv = message(s, v, basis, direction, edge_index)
            state = torch.cat([s + ds, (dv if v is None else v + dv).flatten(1)], dim=-1)
            state = state + update(state)
            s, v = state[:, : s.shape[1]], state[:, s.shape[1] :].unflatten(-1, (3, -1))
        return {
            "forces": self.force(state),
            "energy": sum_by(batch, self.energy(state).squeeze(-1), n_atoms.shape[0]),
        }


def build(config: Mapping[str, Any]) -> PlainVectors:
    """Config: ``features``, ``layers``, ``radial`` (basis functions), ``cutoff`` (A)."""
    return PlainVectors(config["features"], config["layers"], config["radial"], config["cutoff"])
