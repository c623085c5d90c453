"""Invariant point attention between CA frames, after AlphaFold 2's structure module (Jumper et al.
2021, algorithm 22)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from equivbench.kernels.backends.plain.attention import length, point_attention, to_global, to_local
from equivbench.tasks.flow.networks.features import (
    VECTORS,
    PairEmbedding,
    ResidueEmbedding,
    TimeEmbedding,
    frames_along,
    vectors_of,
)
from equivbench.tasks.flow.networks.transformer import (
    Block,
    Denoiser,
    PairBias,
    denoiser,
    zero_initialised,
)


class FrameAttention(nn.Module):
    """Attention whose logits also count the distances of points that residues place in their
    frames, and that moves points.

    The sums of pair features over the attention, which algorithm 22 also returns, are left out.

    Parameters
    ----------
    dim, heads, scalars
        Width of the residues' features, heads, and width of each head's scalar queries, keys and
        values.
    query_points, value_points
        Points a head.
    """

    def __init__(
        self, dim: int, heads: int, scalars: int, query_points: int, value_points: int
    ) -> None:
        super().__init__()
        self.heads, self.scalars, self.query_points, self.value_points = (
            heads,
            scalars,
            query_points,
            value_points,
        )
        self.projection = nn.Linear(dim, 3 * heads * scalars, bias=False)
        self.points = nn.Linear(dim, 3 * heads * (2 * query_points + value_points))
        # Algorithm 22's weights of points start at softplus^-1(1).
        self.point_weight = nn.Parameter(torch.full((heads,), 0.541))
        self.out = zero_initialised(nn.Linear(heads * (scalars + 4 * value_points), dim))

    def forward(self, x: Tensor, bias: Tensor, frames: Tensor, positions: Tensor) -> Tensor:
        """From x [samples, residues, dim], bias [samples, heads, residues, residues], frames and
        positions (nm)."""
        with torch.autocast(x.device.type, enabled=False):
            x, bias = x.to(positions.dtype), bias.to(positions.dtype)
            q, k, v = self.projection(x).reshape(*x.shape[:2], self.heads, -1).chunk(3, dim=-1)
            rows = x.shape[:2]
            placed = to_global(frames, self.points(x).reshape(*rows, -1, 3)) + positions[:, :, None]
            counts = (self.query_points, self.query_points, self.value_points)
            weight = functional.softplus(self.point_weight) * (2 / (9 * self.query_points)) ** 0.5
            scalars, points = point_attention(
                q, k, v, placed.reshape(*rows, self.heads, -1), counts, weight, bias
            )
            relative = points.reshape(*rows, -1, 3) - positions[:, :, None]
            local = to_local(frames, relative)
            out: Tensor = self.out(
                torch.cat(
                    [scalars.flatten(2), local.flatten(2), length(relative).flatten(2)], dim=-1
                )
            )
            return out


class FrameNetwork(nn.Module):
    """Local coordinates in, velocity in local coordinates out; the frames are those of x_t and
    stay."""

    def __init__(
        self,
        dim: int,
        layers: int,
        heads: int,
        expansion: int,
        pair: int,
        time: int,
        bins: int,
        scalars: int,
        query_points: int,
        value_points: int,
    ) -> None:
        super().__init__()
        self.time = TimeEmbedding(time)
        self.residue = ResidueEmbedding(dim)
        self.local = nn.Linear(3 * VECTORS, dim)
        self.pair = PairEmbedding(pair, bins, time)
        self.bias = PairBias(pair, layers, heads)
        self.blocks = nn.ModuleList(
            Block(
                FrameAttention(dim, heads, scalars, query_points, value_points),
                dim,
                expansion,
                time,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.head = zero_initialised(nn.Linear(dim, 3))

    def forward(
        self, x_t: Tensor, guess: Tensor, x_sc: Tensor, t: Tensor, mask: Tensor, residue: Tensor
    ) -> Tensor:
        """[samples, residues, 3], no unit, from positions in nm."""
        time = self.time(t)
        with torch.autocast(x_t.device.type, enabled=False):
            frames = frames_along(x_t, mask)
            x = self.local(
                to_local(frames, vectors_of(guess, x_sc, mask, residue)).flatten(2)
            ) + self.residue(residue)
        pair = self.pair(x_t, x_sc, residue, time)
        for block, bias in zip(self.blocks, self.bias(pair, mask), strict=True):
            x = block(x, time, bias, frames, guess)
        with torch.autocast(x_t.device.type, enabled=False):
            velocity = self.head(self.norm(x).to(x_t.dtype))
            return to_global(frames, velocity[:, :, None]).squeeze(2)


def build(config: Mapping[str, Any]) -> Denoiser:
    """Config: that of the plain network, and each head's ``scalars``, ``query_points`` and
    ``value_points``."""
    return denoiser(FrameNetwork, config)
