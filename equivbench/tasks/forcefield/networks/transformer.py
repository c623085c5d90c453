"""A plain transformer on raw relative vectors: attention over neighbours, keys and values modulated
by filters of r_ij.

The trunk is that of TorchMD-NET's Equivariant Transformer (Thoelke & De Fabritiis 2022, 2202.02541)
without its vector features: filters of the distance become filters of the whole relative vector,
and forces are read from the atoms' features as three ordinary numbers. Nothing is
rotation-equivariant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from equivbench.tasks.forcefield.networks.graph import MolecularNetwork, sum_by


@dataclass(frozen=True)
class Maps:
    """What the trunk is made of, from widths to layers; as they are, those of a plain network."""

    linear: Callable[[int, int], nn.Module] = nn.Linear
    two: Callable[[int], nn.Module] = lambda width: nn.Linear(width, 2 * width)
    """Two linear maps, what they give side by side."""
    norm: Callable[[int], nn.Module] = nn.LayerNorm
    geometry: Callable[[int, int], nn.Module] = nn.Linear
    """From 4 K numbers of an edge: K functions of its length, then these times x, y and z of its
    direction."""
    scalar: Callable[[int], nn.Module] = lambda width: nn.Linear(width, 1)
    vector: Callable[[int], nn.Module] = lambda width: nn.Linear(width, 3)
    copies: int = 1
    """Of the embedding of an element, side by side in the features of an atom."""

    def mlp(self, width: int, hidden: int, last: Callable[[int], nn.Module]) -> nn.Sequential:
        """A linear map, SiLU, and what ``last`` gives for the hidden width."""
        return nn.Sequential(self.linear(width, hidden), nn.SiLU(), last(hidden))


PLAIN = Maps()


class VectorTransformerLayer(nn.Module):
    """Attention over the neighbours and a feed-forward layer, residual, normalised first."""

    def __init__(self, width: int, heads: int, neighbours: float, maps: Maps) -> None:
        super().__init__()
        self.heads, self.scale = heads, neighbours**-0.5
        self.before_attention, self.before_feed_forward = maps.norm(width), maps.norm(width)
        self.query = maps.linear(width, width)
        self.key_value = maps.two(width)
        self.filter = maps.two(width)
        self.out = maps.linear(width, width)
        self.feed_forward = maps.mlp(width, 2 * width, lambda hidden: maps.linear(hidden, width))

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
        self,
        width: int,
        layers: int,
        heads: int,
        radial: int,
        cutoff: float,
        neighbours: float,
        maps: Maps = PLAIN,
    ) -> None:
        super().__init__(width // maps.copies, cutoff, radial)
        self.copies = maps.copies
        self.geometry = nn.Sequential(maps.geometry(4 * (radial + 1), width), nn.SiLU())
        self.layers = nn.ModuleList(
            VectorTransformerLayer(width, heads, neighbours, maps) for _ in range(layers)
        )
        self.norm = maps.norm(width)
        self.energy = maps.mlp(width, width, maps.scalar)
        self.force = maps.mlp(width, width, maps.vector)

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
        if self.copies > 1:
            x = x.repeat(1, self.copies)
        for layer in self.layers:
            x = layer(x, geometry, basis[:, -1:], edge_index)
        x = self.norm(x)
        return self.force(x), self.energy(x)


def build(config: Mapping[str, Any]) -> VectorTransformer:
    """Config: ``width``, ``layers``, ``heads``, ``radial`` functions, ``cutoff`` (A),
    ``neighbours`` (their mean number)."""
    return VectorTransformer(**config)
