"""A chain about each residue: steps along it, their invariants that a mirror leaves alone, and
those whose sign it changes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equivbench.kernels.backends.plain.attention import length

STRIDES = (1, 2, 4)
"""Bonds and vectors from each residue to those this far on in the chain; 1-4 residues make a
helix's turn."""
VECTORS = 2 * (2 * len(STRIDES) + 1)
"""How many vectors :func:`vectors_of` gives a residue."""
_SOFT = 1e-6
"""nm^2: keeps the direction of a bond of no length finite, far below the bonds' .14 nm^2."""


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


class EvenInvariants(nn.Module):
    """Lengths and angles about each residue in x_t and x_sc, which a mirror leaves alone."""

    size = 2 * (3 * len(STRIDES) + 1) + 1 + 2 * len(STRIDES)

    def forward(self, x_t: Tensor, x_sc: Tensor, mask: Tensor, residue: Tensor) -> Tensor:
        """[samples, residues, size] from positions [samples, residues, 3] nm."""
        features = [(x_t * x_sc).sum(-1, keepdim=True)]
        steps = {}
        for name, x in (("t", x_t), ("sc", x_sc)):
            features.append(length(x))
            for stride in STRIDES:
                backward, forward = steps[name, stride] = steps_along(x, mask, residue, stride)
                features += [
                    length(backward),
                    length(forward),
                    (direction(backward) * direction(forward)).sum(-1, keepdim=True),
                ]
        for stride in STRIDES:
            for side in (0, 1):
                features.append(
                    (steps["t", stride][side] * steps["sc", stride][side]).sum(-1, keepdim=True)
                )
        return torch.cat(features, dim=-1)


class OddInvariants(nn.Module):
    """Signed volumes about each residue in x_t and x_sc, which change sign in a mirror: without
    them a chain has no hand.

    For consecutive steps a, b, c of each stride (a.b x c) of the lengths and of the directions, the
    second the sine that a dihedral angle is made of.
    """

    size = 4 * len(STRIDES)

    def forward(self, x_t: Tensor, x_sc: Tensor, mask: Tensor, residue: Tensor) -> Tensor:
        """[samples, residues, size] from positions [samples, residues, 3] nm."""
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
                    features.append((a * torch.linalg.cross(b, c)).sum(-1, keepdim=True))
        return torch.cat(features, dim=-1)
