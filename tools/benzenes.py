"""The batch that reference models are timed on: 16 benzenes, 192 atoms, 2,112 directed edges within
5 A."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def benzene_batch(
    molecules: int = 16, cutoff: float = 5.0, jitter: float = 0.01
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(pos [atoms, 3] A, z [atoms], batch [atoms], edge_index [2, edges] with row 0 the source and
    row 1 the target)."""
    # numpy's legacy stream is the same in every version, so that each environment times the same
    # batch.
    displacement = torch.from_numpy(
        np.random.RandomState(0).normal(scale=jitter, size=(molecules, 12, 3))
    ).float()
    angles = torch.arange(6) * math.pi / 3
    ring = torch.stack([angles.cos(), angles.sin(), torch.zeros(6)], dim=1)
    one = torch.cat([1.397 * ring, 2.481 * ring])
    pos = (one + displacement).reshape(-1, 3)
    z = torch.tensor([6] * 6 + [1] * 6).repeat(molecules)
    batch = torch.arange(molecules).repeat_interleave(12)
    distance = torch.cdist(pos, pos)
    near = (
        (distance < cutoff)
        & (batch[:, None] == batch[None, :])
        & ~torch.eye(len(pos), dtype=torch.bool)
    )
    target, source = near.nonzero(as_tuple=True)
    return pos, z, batch, torch.stack([source, target])


def targets(molecules: int, atoms: int) -> tuple[Tensor, Tensor]:
    """(energy [molecules, 1], forces [atoms, 3]): fixed random labels; their values do not matter
    to the time of a step."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(molecules, 1, generator=generator), torch.randn(
        atoms, 3, generator=generator
    )
