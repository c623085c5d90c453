"""A Proteina-style transformer on raw coordinates: nothing in it is equivariant under rotations but
its features of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from equivbench.tasks.flow.networks.denoiser import Denoiser
from equivbench.tasks.flow.networks.embedding import PairEmbedding, ResidueEmbedding, TimeEmbedding
from equivbench.tasks.flow.networks.transformer import Trunk, zero_initialised


class CoordinateNetwork(nn.Module):
    """Coordinates as six ordinary numbers in, three out."""

    def __init__(
        self, dim: int, layers: int, heads: int, expansion: int, pair: int, time: int, bins: int
    ) -> None:
        super().__init__()
        self.time = TimeEmbedding(time)
        self.residue, self.position = ResidueEmbedding(dim), nn.Linear(6, dim)
        self.pair = PairEmbedding(pair, bins, time)
        self.trunk = Trunk(dim, layers, heads, expansion, pair, time)
        self.head = zero_initialised(nn.Linear(dim, 3))

    def forward(
        self, x_t: Tensor, guess: Tensor, x_sc: Tensor, t: Tensor, mask: Tensor, residue: Tensor
    ) -> Tensor:
        """[samples, residues, 3], no unit, from positions in nm."""
        time = self.time(t)
        with torch.autocast(x_t.device.type, enabled=False):
            x = self.position(torch.cat([guess, x_sc], dim=-1)) + self.residue(residue)
        x = self.trunk(x, self.pair(x_t, x_sc, residue, time), time, mask)
        with torch.autocast(x_t.device.type, enabled=False):
            out: Tensor = self.head(x.to(x_t.dtype))
        return out


def build(config: Mapping[str, Any]) -> Denoiser:
    """Config: ``dim``, ``layers``, ``heads``, ``expansion``, ``pair``, ``time``, distance ``bins``,
    ``data_scale`` (nm)."""
    sizes = dict(config)
    scale = sizes.pop("data_scale")
    return Denoiser(CoordinateNetwork(**sizes), scale)
