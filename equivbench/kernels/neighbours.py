"""Neighbour lists of a batch of molecules, as the data pipeline makes them: masked pairs of padded
molecules, so never a pair of two molecules."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def edges_within(
    pos: Float[Tensor, "atoms 3"],
    batch: Int64[Tensor, " atoms"],
    cutoff: float,
    max_neighbours: int | None = None,
) -> Int64[Tensor, "2 edges"]:
    """Directed edges between atoms of one molecule that are closer than ``cutoff``.

    Parameters
    ----------
    pos
        [atoms, 3] positions in A.
    batch
        [atoms] int64, sorted molecule index.
    cutoff
        In A; a pair at exactly this distance is left out.
    max_neighbours
        Keep only the nearest so many sources of each target (ties: the lower atom index), or all if
        None.

    Returns
    -------
    edge_index
        [2, edges] int64: row 0 the source (sender) j, row 1 the target (receiver) i, sorted by
        target, then source.

    Notes
    -----
    Distances are computed in float64. Memory is molecules * widest^2, not atoms^2.
    """
    if len(pos) == 0:
        return batch.new_empty(2, 0)
    n_atoms = torch.bincount(batch)
    first = n_atoms.cumsum(0) - n_atoms
    widest = int(n_atoms.max())
    atom = torch.arange(len(pos), device=pos.device)
    place = batch * widest + atom - first[batch]
    # Empty places are NaN: no comparison with NaN holds, so they never make an edge.
    padded = pos.new_full((3, len(n_atoms) * widest), torch.nan, dtype=torch.float64)
    padded[:, place] = pos.detach().double().T
    padded = padded.view(3, -1, widest)
    along = ((each[:, :, None] - each[:, None, :]).square_() for each in padded)
    distance2 = next(along)
    for square in along:
        distance2 += square
    distance2.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    close = distance2 < cutoff * cutoff
    if max_neighbours is not None and max_neighbours < widest - 1:
        nearest = distance2.argsort(dim=2, stable=True)[..., :max_neighbours]
        close &= torch.zeros_like(close).scatter_(2, nearest, True)
    molecule, target, source = close.nonzero(as_tuple=True)
    start = first[molecule]
    return torch.stack([start + source, start + target])
