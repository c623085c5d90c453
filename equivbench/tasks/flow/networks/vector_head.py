"""The same transformer on invariants, its velocity read as sums of vectors: equivariant under
rotations, not under mirrors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from equivbench.tasks.flow.networks.features import (
    EVEN,
    ODD,
    PairEmbedding,
    ResidueEmbedding,
    TimeEmbedding,
    direction,
    even_invariants,
    odd_invariants,
)
from equivbench.tasks.flow.networks.transformer import (
    ABSENT,
    Denoiser,
    Trunk,
    denoiser,
    zero_initialised,
)


class AttendedVectors(nn.Module):
    """Polar vectors of each residue: sums over the others of (x_j - x_i), in x_t and in x_sc,
    weighted by signed attention.

    The weights are a softmax over j, from the residues' and pairs' features, times a signed factor
    from the pair's, so that sums of differences as well as averages can be formed. The residue's
    own x_t and x_sc (from the centre) come with them.
    """

    def __init__(self, dim: int, pair: int, channels: int, width: int = 8) -> None:
        super().__init__()
        self.channels, self.scale = channels, width**-0.5
        self.query, self.key = nn.Linear(dim, channels * width), nn.Linear(dim, channels * width)
        self.pair = nn.Linear(pair, 2 * channels)
        self.count = 2 * channels + 2

    def forward(
        self, features: Tensor, pair: Tensor, x_t: Tensor, x_sc: Tensor, mask: Tensor
    ) -> Tensor:
        """[samples, residues, count, 3] nm."""
        samples, residues = mask.shape
        query, key = (
            linear(features).reshape(samples, residues, self.channels, -1).transpose(1, 2)
            for linear in (self.query, self.key)
        )
        bias, factor = self.pair(pair).permute(0, 3, 1, 2).chunk(2, dim=1)
        logits = (query @ key.transpose(-1, -2) * self.scale + bias).masked_fill(
            ~mask[:, None, None], ABSENT
        )
        with torch.autocast(x_t.device.type, enabled=False):
            weights = logits.to(x_t.dtype).softmax(-1) * (1 + factor.to(x_t.dtype))
            both = torch.cat([x_t, x_sc], dim=-1)
            sums = weights @ both[:, None] - weights.sum(-1, keepdim=True) * both[:, None]
            vectors = sums.transpose(1, 2).reshape(samples, residues, -1, 3)
            return torch.cat([vectors, x_t[:, :, None], x_sc[:, :, None]], dim=2)


class PolarHead(nn.Module):
    """The sum of a residue's vectors with invariant coefficients."""

    def __init__(self, dim: int, vectors: int) -> None:
        super().__init__()
        self.coefficients = zero_initialised(nn.Linear(dim, vectors))

    def forward(self, features: Tensor, vectors: Tensor) -> Tensor:
        """[samples, residues, 3] from features [samples, residues, dim] and vectors [samples,
        residues, vectors, 3]."""
        out: Tensor = (self.coefficients(features)[..., None] * vectors).sum(2)
        return out


class AxialHead(nn.Module):
    """The sum of cross products of directions with invariant coefficients: what a mirror would turn
    round."""

    def __init__(self, dim: int, vectors: int, products: int) -> None:
        super().__init__()
        self.left, self.right = (nn.Linear(vectors, products, bias=False) for _ in range(2))
        self.coefficients = zero_initialised(nn.Linear(dim, products))

    def forward(self, features: Tensor, vectors: Tensor) -> Tensor:
        """[samples, residues, 3] from features [samples, residues, dim] and vectors [samples,
        residues, vectors, 3]."""
        left, right = (
            direction(mix(vectors.transpose(2, 3)).transpose(2, 3))
            for mix in (self.left, self.right)
        )
        out: Tensor = (
            self.coefficients(features)[..., None] * torch.linalg.cross(left, right)
        ).sum(2)
        return out


class InvariantNetwork(nn.Module):
    """Invariants in, vectors out; the trunk never sees a coordinate."""

    def __init__(
        self,
        dim: int,
        layers: int,
        heads: int,
        expansion: int,
        pair: int,
        time: int,
        bins: int,
        vectors: int,
        products: int,
    ) -> None:
        super().__init__()
        self.time = TimeEmbedding(time)
        self.residue = ResidueEmbedding(dim)
        self.even, self.odd = even_invariants, odd_invariants
        self.invariants = nn.Linear(EVEN + ODD, dim)
        self.pair = PairEmbedding(pair, bins, time)
        self.trunk = Trunk(dim, layers, heads, expansion, pair, time)
        self.vectors = AttendedVectors(dim, pair, vectors)
        self.polar = PolarHead(dim, self.vectors.count)
        self.axial = AxialHead(dim, self.vectors.count, products)

    def forward(
        self, x_t: Tensor, guess: Tensor, x_sc: Tensor, t: Tensor, mask: Tensor, residue: Tensor
    ) -> Tensor:
        """[samples, residues, 3], no unit, from positions in nm."""
        time = self.time(t)
        with torch.autocast(x_t.device.type, enabled=False):
            invariants = torch.cat(
                [part(guess, x_sc, mask, residue) for part in (self.even, self.odd)],
                dim=-1,
            )
            x = self.invariants(invariants) + self.residue(residue)
        pair = self.pair(x_t, x_sc, residue, time)
        x = self.trunk(x, pair, time, mask)
        vectors = self.vectors(x, pair, guess, x_sc, mask)
        with torch.autocast(x_t.device.type, enabled=False):
            x = x.to(x_t.dtype)
            out: Tensor = self.polar(x, vectors) + self.axial(x, vectors)
        return out


def build(config: Mapping[str, Any]) -> Denoiser:
    """Config: that of the plain network, and the channels of attended ``vectors`` and of cross
    ``products``."""
    return denoiser(InvariantNetwork, config)
