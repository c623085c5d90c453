"""Local frames of a chain, built by Gram-Schmidt from three CA atoms in a row."""

from __future__ import annotations

import torch
from torch import Tensor

from equivbench.tasks.flow.networks.invariants import direction


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
