"""Features of times, residue numbers and pairs of residues, all invariant under rotations."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

NEAREST, FARTHEST = 0.1, 3.0
"""Range of the distance bins, nm, as in Proteina."""
MAX_SEPARATION = 63
"""Separations along the chain beyond this one look alike (127 bins, as in Proteina)."""


def sinusoids(values: Tensor, size: int, longest: float) -> Tensor:
    """[..., size] cosines and sines of ``values`` [...] with wavelengths 2 pi / ``longest`` ... 2
    pi, geometric."""
    steps = torch.arange(size // 2, device=values.device, dtype=values.dtype) / max(
        1, size // 2 - 1
    )
    angles = values[..., None] * torch.exp(steps * math.log(longest))
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    """[samples, size] features of t [samples]."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.mlp = nn.Sequential(nn.Linear(size, size), nn.SiLU(), nn.Linear(size, size), nn.SiLU())

    def forward(self, t: Tensor) -> Tensor:
        """Features of t in [0, 1]."""
        out: Tensor = self.mlp(sinusoids(t, self.size, 1000.0))
        return out


class ResidueEmbedding(nn.Module):
    """[samples, residues, dim] features of the residue number."""

    def __init__(self, dim: int, size: int = 64) -> None:
        super().__init__()
        self.size = size
        self.linear = nn.Linear(size, dim)

    def forward(self, residue: Tensor) -> Tensor:
        """Features of ``residue`` [samples, residues]."""
        numbers = residue.to(self.linear.weight.dtype) / 256
        out: Tensor = self.linear(sinusoids(numbers, self.size, 256.0))
        return out


def soft_bins(distance: Tensor, bins: int) -> Tensor:
    """[..., bins]: Gaussians of ``distance`` [...] nm about evenly spaced centres in .1-3 nm, as
    wide as their spacing.

    Proteina's bins are hard. Those jump when rounding moves a distance over an edge, which would be
    read as an error of equivariance.
    """
    spacing = (FARTHEST - NEAREST) / (bins - 1)
    centres = NEAREST + spacing * torch.arange(bins, device=distance.device, dtype=distance.dtype)
    # Beyond the range the last bin stays on, as an open-ended bin does.
    return torch.exp(-(((distance.clamp(max=FARTHEST)[..., None] - centres) / spacing) ** 2))


def distances(x: Tensor) -> Tensor:
    """[samples, residues, residues] distances of ``x`` [samples, residues, 3], with finite
    gradients where points coincide."""
    return ((x[:, :, None] - x[:, None]).square().sum(-1) + 1e-12).sqrt()


class PairEmbedding(nn.Module):
    """[samples, residues, residues, dim] features: distances in x_t and x_sc, separation along the
    chain, and the time.

    One hidden layer mixes them; they stay the same through the trunk, as in Proteina's model
    without triangle updates.
    """

    def __init__(self, dim: int, bins: int, time: int) -> None:
        super().__init__()
        self.bins = bins
        self.separation = nn.Embedding(2 * MAX_SEPARATION + 1, dim)
        self.distance = nn.Linear(2 * bins, dim)
        self.time = nn.Linear(time, dim)
        self.norm = nn.LayerNorm(dim)
        self.mix = nn.Linear(dim, dim)

    def forward(self, x_t: Tensor, x_sc: Tensor, residue: Tensor, time: Tensor) -> Tensor:
        """From positions [samples, residues, 3] nm, residue numbers [samples, residues] and time
        features [samples, T]."""
        with torch.autocast(x_t.device.type, enabled=False):
            binned = torch.cat([soft_bins(distances(x), self.bins) for x in (x_t, x_sc)], dim=-1)
        apart = (residue[:, :, None] - residue[:, None]).clamp(
            -MAX_SEPARATION, MAX_SEPARATION
        ) + MAX_SEPARATION
        pair = self.distance(binned) + self.separation(apart) + self.time(time)[:, None, None]
        out: Tensor = functional.silu(self.mix(functional.silu(self.norm(pair))))
        return out
