"""Neighbour lists of periodic structures: every image of every atom within a cutoff, whatever the
shape of the cell, also where it is smaller than the cutoff."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from equivbench.errors import UsageError

_PAIRS_AT_ONCE = 1 << 21
"""Pairs of an atom and an image whose distances are worked out together: 16 MiB."""


def periodic_edges_within(
    pos: Float[Tensor, "atoms 3"],
    batch: Int64[Tensor, " atoms"],
    cell: Float[Tensor, "structures 3 3"],
    pbc: Bool[Tensor, "structures 3"],
    cutoff: float,
    max_neighbours: int | None = None,
) -> tuple[Int64[Tensor, "2 edges"], Int64[Tensor, "edges 3"]]:
    """Directed edges between atoms and the images of atoms of their structure that are closer than
    ``cutoff``; an atom is a neighbour of its own images, not of itself.

    Parameters
    ----------
    pos
        [atoms, 3] positions in A, which need not lie in the cell.
    batch
        [atoms] int64, sorted index of the structure.
    cell
        [structures, 3, 3] in A, whose rows are the lattice vectors.
    pbc
        [structures, 3]: along which of them the structure repeats; the others are not looked at.
    cutoff
        In A; an image at exactly this distance is left out.
    max_neighbours
        Keep only the nearest so many images for each target (ties: the lower atom index, then the
        lower shift), or all if None.

    Returns
    -------
    edge_index, cell_shifts
        [2, edges] int64: row 0 the source (sender) j, row 1 the target (receiver) i; [edges, 3]
        int64: how many lattice vectors the source is moved by, so that its image is at ``pos[j] +
        cell_shifts @ cell``. Sorted by target, source and shift.

    Raises
    ------
    UsageError
        Where a structure repeats along vectors that do not span so many dimensions.

    Notes
    -----
    Distances are computed in float64. The images to look at follow from the distances between
    lattice planes, the inverse lengths of the reciprocal vectors, once atoms are moved into the
    cell.
    """
    lattice = cell.detach().double() * pbc[:, :, None]
    if bool((torch.linalg.matrix_rank(lattice) < pbc.sum(1)).any()):
        raise UsageError(
            "a structure repeats along lattice vectors that are zero or depend on one another; "
            "give a cell that spans every direction in which pbc is true"
        )
    # Of a direction without repetition the reciprocal vector is 0, too, but for rounding.
    reciprocal = torch.linalg.pinv(lattice) * pbc[:, None, :]
    images = torch.ceil(cutoff * torch.linalg.vector_norm(reciprocal, dim=1)).long()
    places = pos.detach().double()
    cells = torch.einsum("ni,nik->nk", places, reciprocal[batch]).floor()
    places = places - torch.einsum("nk,nki->ni", cells, lattice[batch])
    counts = torch.bincount(batch, minlength=len(cell))
    found = [
        _of_one(places[start : start + count], lattice[which], images[which], cutoff, start)
        for which, (start, count) in enumerate(
            zip((counts.cumsum(0) - counts).tolist(), counts.tolist(), strict=True)
        )
    ]
    squares = torch.cat([each[0] for each in found])
    source, target, shifts = (torch.cat([each[part] for each in found]) for part in (1, 2, 3))
    # From images of atoms in the cell to those of the atoms where they are.
    shifts = shifts + (cells[target] - cells[source]).long()
    order = torch.arange(len(source), device=pos.device)
    for column in (*shifts.T.flip(0), source, target):
        order = order[column[order].argsort(stable=True)]
    if max_neighbours is not None:
        order = order[_nearest(squares[order], target[order], max_neighbours)]
    return torch.stack([source[order], target[order]]), shifts[order]


def _of_one(
    places: Tensor, lattice: Tensor, images: Tensor, cutoff: float, start: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(squared distance [edges], source [edges], target [edges], shift [edges, 3]) of one structure
    with atoms in its cell, numbered from ``start``, and up to ``images`` [3] of them each way."""
    shifts = torch.cartesian_prod(
        *(torch.arange(-most, most + 1, device=places.device) for most in images.tolist())
    )
    apart = places - places[:, None]
    found = []
    at_once = max(1, _PAIRS_AT_ONCE // max(1, len(places) ** 2))
    for some in torch.split(shifts, at_once):
        square = torch.zeros((), dtype=torch.float64, device=places.device)
        moves = some.double() @ lattice
        for axis in range(3):
            square = square + (apart[:, :, None, axis] + moves[:, axis]).square_()
        close = square < cutoff * cutoff
        own = (some == 0).all(1)
        close.diagonal(dim1=0, dim2=1)[own] = False
        target, source, shift = close.nonzero(as_tuple=True)
        found.append((square[close], start + source, start + target, some[shift]))
    squares, sources, targets, moved = (
        torch.cat([each[part] for each in found]) for part in range(4)
    )
    return squares, sources, targets, moved


def _nearest(squares: Tensor, target: Tensor, most: int) -> Tensor:
    """[edges] mask of the ``most`` nearest edges of each target; edges are sorted by target."""
    order = squares.argsort(stable=True)
    order = order[target[order].argsort(stable=True)]
    taken = torch.bincount(target)
    rank = torch.arange(len(target), device=target.device) - (taken.cumsum(0) - taken)[target]
    return torch.zeros_like(target, dtype=torch.bool).scatter_(0, order, rank < most)
