"""A plain transformer on raw relative vectors: attention over neighbours, keys and values modulated
by filters of r_ij.

The trunk is that of TorchMD-NET's Equivariant Transformer (Thoelke & De Fabritiis 2022, 2202.02541)
without its vector features: filters of the distance become filters of the whole relative vector,
and forces are read from the atoms' features as three ordinary numbers. Nothing is
rotation-equivariant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from equivbench.tasks.forcefield.networks.graph import MolecularNetwork, mlp, sum_by


class VectorTransformerLayer(nn.Module):
    """Attention over the neighbours and a feed-forward layer, residual, normalised first."""

    def __init__(self, width: int, heads: int, geometry: int, neighbours: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, neighbours**-0.5
        self.before_attention, self.before_feed_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.filter = nn.Linear(geometry, 2 * width)
        self.out = nn.Linear(width, width)
        self.feed_forward = mlp(width, 2 * width, width)

    def forward(self, x: Tensor, geometry: Tensor, smooth: Tensor, edge_index: Tensor) -> Tensor:
        """New features [atoms, H] from x [atoms, H], geometry [edges, G] and the cutoff's value
        [edges, 1]."""
        source, target = edge_index[0], edge_index[1]
        at = self.before_attention(x)
        key, value = (self.key_value(at).index_select(0, source) * self.filter(geometry)).chunk(
            2, dim=-1
        )
        query = self.query(at).index_select(0, target)
        scores = (query * key).unflatten(-1, (self.heads, -1)).sum(-1)
        # SiLU times the cutoff instead of a softmax, as in TorchMD-NET: smooth where a neighbour
        # enters.
        weights = functional.silu(scores) * (smooth * self.scale)
        message = (value.unflatten(-1, (self.heads, -1)) * weights.unsqueeze(-1)).flatten(1)
        x = x + self.out(sum_by(target, message, x.shape[0]))
        out: Tensor = x + self.feed_forward(self.before_feed_forward(x))
        return out


class VectorTransformer(MolecularNetwork):
    """Energies and direct forces of the transformer."""

    def __init__(
        self, width: int, layers: int, heads: int, radial: int, cutoff: float, neighbours: float
    ) -> None:
        super().__init__(width, cutoff, radial)
        self.geometry = nn.Sequential(nn.Linear(4 * (radial + 1), width), nn.SiLU())
        self.layers = nn.ModuleList(
            VectorTransformerLayer(width, heads, width, neighbours) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.energy = mlp(width, width, 1)
        self.force = mlp(width, width, 3)

    def predict(
        self, z: Tensor, vectors: Tensor, distance: Tensor, basis: Tensor, edge_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """From messages along the edges."""
        direction = vectors / distance.unsqueeze(-1)
        # Radial functions alone and times x, y, z of the direction.
        geometry = self.geometry(
            torch.cat([basis, (basis.unsqueeze(1) * direction.unsqueeze(-1)).flatten(1)], dim=-1)
        )
        x = self.embedding(z)
        for layer in self.layers:
            x = layer(x, geometry, basis[:, -1:], edge_index)
        x = self.norm(x)
        return self.force(x), self.energy(x)


def build(config: Mapping[str, Any]) -> VectorTransformer:
    """Config: ``width``, ``layers``, ``heads``, ``radial`` functions, ``cutoff`` (A),
    ``neighbours`` (their mean number)."""
    return VectorTransformer(**config)
