"""What the networks know of a chain before they attend: features of the time, of residue numbers
and of pairs; steps along the chain with their invariants; and a local frame at each residue.

Invariants come in two kinds: even ones, that a mirror leaves alone, and odd ones, whose sign it
changes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from equivbench.kernels.backends.plain.attention import length

NEAREST, FARTHEST = 0.1, 3.0
"""Range of the distance bins, nm, as in Proteina."""
FAR = 6.0
"""Spacings from a distance bin beyond which one is as far as another: a Gaussian is 2e-16 there.
Farther ones would underflow, and numbers below the normal range take a processor several times as
long as others."""
MAX_SEPARATION = 63
"""Separations along the chain beyond this one look alike (127 bins, as in Proteina)."""
STRIDES = (1, 2, 4)
"""Bonds and vectors from each residue to those this far on in the chain; 1-4 residues make a
helix's turn."""
VECTORS = 2 * (2 * len(STRIDES) + 1)
"""How many vectors :func:`vectors_of` gives a residue."""
EVEN, ODD = 2 * (3 * len(STRIDES) + 1) + 1 + 2 * len(STRIDES), 4 * len(STRIDES)
"""How many invariants there are of a residue."""
_SOFT = 1e-6
"""nm^2: keeps the direction of a bond of no length finite, far below the bonds' .14 nm^2."""


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

    size = 64

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(self.size, dim)

    def forward(self, residue: Tensor) -> Tensor:
        """Features of ``residue`` [samples, residues]."""
        numbers = residue.to(self.linear.weight.dtype) / 256
        out: Tensor = self.linear(sinusoids(numbers, self.size, 256.0))
        return out


def soft_bins(distance: Tensor, bins: int) -> Tensor:
    """[..., bins]: Gaussians of ``distance`` [...] nm about evenly spaced centres in .1-3 nm, as
    wide as their spacing; at their least what they are ``FAR`` spacings away, 2e-16.

    Proteina's bins are hard. Those jump when rounding moves a distance over an edge, which would be
    read as an error of equivariance.
    """
    spacing = (FARTHEST - NEAREST) / (bins - 1)
    # Beyond the range the last bin stays on, as an open-ended bin does.
    place = (distance.clamp(max=FARTHEST) - NEAREST) / spacing
    offset = place[..., None] - torch.arange(bins, device=distance.device, dtype=distance.dtype)
    # Partly in place, for these are the largest tensors of a step.
    return offset.clamp(-FAR, FAR).square().neg_().exp_()


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
            both = torch.stack([distances(x) for x in (x_t, x_sc)], dim=-1)
            binned = soft_bins(both, self.bins).flatten(-2)
        apart = (residue[:, :, None] - residue[:, None]).clamp(
            -MAX_SEPARATION, MAX_SEPARATION
        ) + MAX_SEPARATION
        pair = self.distance(binned) + self.separation(apart) + self.time(time)[:, None, None]
        out: Tensor = functional.silu(self.mix(functional.silu(self.norm(pair))))
        return out


def steps_along(x: Tensor, mask: Tensor, residue: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """(backward, forward) [samples, residues, 3]: x_i - x_(i-s) and x_(i+s) - x_i, 0 where the
    chain has no such residue."""
    if stride >= x.shape[1]:
        return torch.zeros_like(x), torch.zeros_like(x)
    exists = (
        mask[:, stride:]
        & mask[:, :-stride]
        & (residue[:, stride:] - residue[:, :-stride] == stride)
    )
    step = (x[:, stride:] - x[:, :-stride]).masked_fill(~exists[..., None], 0.0)
    absent = step.new_zeros(len(x), stride, 3)
    return torch.cat([absent, step], dim=1), torch.cat([step, absent], dim=1)


def direction(x: Tensor) -> Tensor:
    """x [..., 3] over its length, softly: 0 at 0."""
    return x / (x.square().sum(-1, keepdim=True) + _SOFT).sqrt()


def vectors_of(guess: Tensor, x_sc: Tensor, mask: Tensor, residue: Tensor) -> Tensor:
    """[samples, residues, VECTORS, 3] nm: each residue from the centre, and its steps along the
    chain, in both positions."""
    vectors = [guess, x_sc]
    for x in (guess, x_sc):
        for stride in STRIDES:
            vectors += steps_along(x, mask, residue, stride)
    return torch.stack(vectors, dim=2)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1, keepdim=True)


def even_invariants(x_t: Tensor, x_sc: Tensor, mask: Tensor, residue: Tensor) -> Tensor:
    """[samples, residues, EVEN] lengths and angles about each residue in positions [samples,
    residues, 3] nm, which a mirror leaves alone."""
    features, steps = [_dot(x_t, x_sc)], []
    for x in (x_t, x_sc):
        features.append(length(x))
        steps.append([steps_along(x, mask, residue, stride) for stride in STRIDES])
        for backward, forward in steps[-1]:
            features += [
                length(backward),
                length(forward),
                _dot(direction(backward), direction(forward)),
            ]
    for ours, other in zip(*steps, strict=True):
        features += [_dot(a, b) for a, b in zip(ours, other, strict=True)]
    return torch.cat(features, dim=-1)


def odd_invariants(x_t: Tensor, x_sc: Tensor, mask: Tensor, residue: Tensor) -> Tensor:
    """[samples, residues, ODD] signed volumes about each residue, which change sign in a mirror:
    without them a chain has no hand.

    For consecutive steps a, b, c of each stride (a.b x c) of the lengths and of the directions, the
    second the sine that a dihedral angle is made of.
    """
    features = []
    for x in (x_t, x_sc):
        for stride in STRIDES:
            backward, forward = steps_along(x, mask, residue, stride)
            # The step after the next one: where the next one is 0, so is the volume.
            following = torch.cat(
                [forward[:, stride:], torch.zeros_like(forward[:, :stride])], dim=1
            )
            steps = (backward, forward, following)
            for a, b, c in (steps, tuple(map(direction, steps))):
                features.append(_dot(a, torch.linalg.cross(b, c)))
    return torch.cat(features, dim=-1)


def frames_along(x: Tensor, mask: Tensor) -> Tensor:
    """[samples, residues, 3, 3] right-handed frames of a chain x [samples, residues, 3]; their rows
    are the axes.

    The first axis goes from the previous residue to the next, the second lies in the triplet's
    plane towards the residue, the third is their cross product. The ends take the frame of the
    nearest triplet. Three residues in line or in one point give axes of length 0 rather than an
    arbitrary frame: no rotation then, but finite and still equivariant.
    """
    last = (mask.sum(1, keepdim=True) - 2).clamp(min=1)
    middle = torch.minimum(
        torch.arange(x.shape[1], device=x.device).expand(mask.shape).clamp(min=1), last
    )
    before, at, after = (_at(x, middle + step) for step in (-1, 0, 1))
    first = direction(after - before)
    sideways = at - (before + after) / 2
    second = direction(sideways - (sideways * first).sum(-1, keepdim=True) * first)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-2)


def _at(x: Tensor, index: Tensor) -> Tensor:
    """x [samples, residues, 3] at ``index`` [samples, residues], the last residue for what lies
    beyond."""
    return x.gather(1, index.clamp(max=x.shape[1] - 1)[..., None].expand(-1, -1, 3))
