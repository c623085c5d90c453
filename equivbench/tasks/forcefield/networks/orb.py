"""Orb: a graph network on raw relative vectors whose edges have states, weighed as they are summed;
nothing in it is rotation-equivariant.

After Orb-v3 (Rhodes et al. 2025, 2504.06231), a graph network simulator (Sanchez-Gonzalez et al.
2020, 2002.09405): what an edge starts from is its radial functions times spherical harmonics of its
direction, which an ordinary network takes as so many numbers; every layer updates the states of
edges and atoms from each other; each edge has one weight for the atom that it leaves and one for
the atom that it enters, which end smoothly at the cutoff.

Departures: Bessel functions with the cosine cutoff of the other networks here; maps of concatenated
states of an edge and its ends are summed from their parts, which is the same function and cheaper;
the net force of a molecule is left as it comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from e3nn import o3
from torch import Tensor, nn

from equivbench.tasks.forcefield.networks.graph import MolecularNetwork, mlp, sum_by


def normalised(width: int, hidden: int) -> nn.Sequential:
    """What is left of a layer's perceptron behind its first map: SiLU, a map, SiLU, a map, and a
    normalisation."""
    return nn.Sequential(nn.SiLU(), mlp(hidden, hidden, width), nn.RMSNorm(width))


class OrbLayer(nn.Module):
    """New states of the edges, from themselves and their ends, and of the atoms, from sums over the
    edges that enter and that leave them."""

    def __init__(self, width: int, hidden: int, neighbours: float) -> None:
        super().__init__()
        self.scale = neighbours**-0.5
        self.own = nn.Linear(width, hidden)
        self.ends = nn.Linear(width, 2 * hidden, bias=False)
        self.edge = normalised(width, hidden)
        self.weights = nn.Linear(width, 2)
        self.sums = nn.Linear(3 * width, hidden)
        self.node = normalised(width, hidden)

    def forward(
        self, nodes: Tensor, edges: Tensor, smooth: Tensor, edge_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """New (nodes [atoms, W], edges [edges, W]) from these and the cutoff's value [edges, 1]."""
        source, target = edge_index[0], edge_index[1]
        leaving, entering = self.ends(nodes).chunk(2, dim=-1)
        change = self.edge(
            self.own(edges) + leaving.index_select(0, source) + entering.index_select(0, target)
        )
        sent, received = (torch.sigmoid(self.weights(edges)) * (smooth * self.scale)).chunk(
            2, dim=-1
        )
        states = [
            nodes,
            sum_by(target, change * received, len(nodes)),
            sum_by(source, change * sent, len(nodes)),
        ]
        return nodes + self.node(self.sums(torch.cat(states, dim=-1))), edges + change


class Orb(MolecularNetwork):
    """Energies and direct forces from the last states of the atoms."""

    def __init__(
        self,
        width: int,
        hidden: int,
        layers: int,
        lmax: int,
        radial: int,
        cutoff: float,
        neighbours: float,
    ) -> None:
        super().__init__(width, cutoff, radial)
        self.degrees = list(range(lmax + 1))
        self.edge = nn.Sequential(
            mlp((radial + 1) * (lmax + 1) ** 2, hidden, width), nn.RMSNorm(width)
        )
        self.layers = nn.ModuleList(OrbLayer(width, hidden, neighbours) for _ in range(layers))
        self.energy = mlp(width, hidden, 1)
        self.force = mlp(width, hidden, 3)

    def predict(
        self, z: Tensor, vectors: Tensor, distance: Tensor, basis: Tensor, edge_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """From states of atoms and edges."""
        harmonics = o3.spherical_harmonics(
            self.degrees, vectors, normalize=True, normalization="component"
        )
        edges = self.edge((harmonics.unsqueeze(2) * basis.unsqueeze(1)).flatten(1))
        nodes = self.embedding(z)
        for layer in self.layers:
            nodes, edges = layer(nodes, edges, basis[:, -1:], edge_index)
        return self.force(nodes), self.energy(nodes)


def build(config: Mapping[str, Any]) -> Orb:
    """Config: ``width`` of the states, ``hidden`` width of the perceptrons, ``layers``, ``lmax`` of
    the harmonics, ``radial`` functions, ``cutoff`` (A), ``neighbours`` (their mean number)."""
    return Orb(**config)
