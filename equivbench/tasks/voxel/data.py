"""Voxel data in memory: splits of molecules with the grid that they are shown on, and atoms to
density grids, on any device: each Gaussian is evaluated only where it is not negligible."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from equivbench.errors import FailedError
from equivbench.tasks.base import TaskData
from equivbench.tasks.splits import RaggedSplit, ragged_data
from equivbench.tasks.storage import RaggedTable, empty_splits
from equivbench.tasks.voxel.table import ELEMENTS, LAYOUT, MARGIN, UNIT, Grid, bounding_radii

WIDTH = 0.93
"""Of an atom's Gaussian, in its radii (Li et al. 2014, doi 10.1142/S0219633614400021, as PyUUL has
it)."""
NEGLIGIBLE = 1e-8
"""Densities below this are left out: those of a hundred atoms together stay below 1e-6."""
_WINDOW_VALUES = {"cpu": 2**17, "cuda": 2**24}
"""Values worked on at once: on a CPU about what its caches hold, on a GPU half a GiB of
temporaries."""


class VoxelSplit(RaggedSplit):
    """One split of conformers, with the grid that they are all shown on."""

    def __init__(self, table: RaggedTable, chosen: Tensor, grid: Grid) -> None:
        super().__init__(table, chosen)
        self.grid = grid

    def collate(self, indices: Tensor) -> dict[str, Tensor]:
        """The samples at ``indices`` [n], atoms concatenated.

        ``pos`` [atoms, 3] float32 A, ``channel`` and ``batch`` [atoms] int64, ``n_atoms`` [n]
        int64, and ``grid`` [n, 4] float64, each row :meth:`Grid.numbers`.
        """
        batch, rows = self.items_of(indices)
        grid = torch.tensor(self.grid.numbers(), dtype=torch.float64)
        return {
            "pos": self.flat["pos"][rows].float() * UNIT,
            "channel": self.flat["channel"][rows].long(),
            "batch": batch,
            "n_atoms": self.counts[indices],
            "grid": grid.expand(len(indices), -1),
        }


def on_grid(table: RaggedTable, card: Mapping[str, Any], name: str, grid: Grid) -> TaskData:
    """The three splits of ``table`` on ``grid``, without the conformers that it does not hold; the
    data's card counts the rest.

    Raises ``FailedError`` if a split is left empty.
    """
    fits = np.array([grid.holds(radius) for radius in bounding_radii(table)], dtype=bool)
    data = ragged_data(table, card, name, partial(VoxelSplit, grid=grid), fits)
    if empty := empty_splits(data.card.sizes):
        raise FailedError(
            f"no conformer of {name} in {empty} fits the {grid.box:g} A box of {grid.size}^3 "
            f"voxels of {grid.resolution:g} A less {MARGIN:g} A of margin; choose a larger grid"
        )
    return data


def load(path: Path, name: str, grid: Grid) -> TaskData:
    """The data set ``name``: the table at ``path`` on ``grid``.

    Raises ``FailedError`` if the file or its card is missing, cut short or changed, or too few
    conformers fit.
    """
    return on_grid(*LAYOUT.read(path), name, grid)


def voxelise(
    pos: Float[Tensor, "atoms 3"],
    channel: Int[Tensor, " atoms"],
    batch: Int[Tensor, " atoms"],
    n_samples: int,
    grid: Grid,
    channels: int = len(ELEMENTS),
) -> Float[Tensor, "{n_samples} {channels} {grid.size} {grid.size} {grid.size}"]:
    """The density 1 - prod_a (1 - exp(-d_a^2 / (.93 radius)^2)) over the atoms a of each sample and
    channel.

    That is VoxMol's (Pinheiro et al. 2023; its code calls PyUUL's ``VolumeMaker``): the probability
    that a voxel lies in some atom, a sum of Gaussians where atoms of one channel are far apart, at
    most 1 everywhere. VoxMol cuts each atom off five voxels away (at .25 A: densities below .003);
    here nothing above ``NEGLIGIBLE`` is left out.

    Parameters
    ----------
    pos
        A, float32 or float64, from the grid's centre; atoms outside the box count as far as they
        reach into it.
    channel, batch
        int64, in [0, channels) and [0, n_samples), in any order.

    Returns
    -------
    Tensor
        [n_samples, channels, size, size, size] in ``pos``'s dtype and on its device, last axes x,
        y, z.
    """
    size, width = grid.size, WIDTH * grid.radius
    reach = width * math.sqrt(-math.log(NEGLIGIBLE)) / grid.resolution
    window = torch.arange(min(math.floor(2 * reach) + 1, size), device=pos.device)
    # log prod_a (1 - V_a) gathers by addition; where an atom sits on a voxel it is -inf, and the
    # density exactly 1.
    logarithm = pos.new_zeros(n_samples * channels * size**3)
    touched = []
    first = (batch * channels + channel) * size**3
    chunk = max(1, _WINDOW_VALUES[pos.device.type] // len(window) ** 3)
    for start in range(0, len(pos), chunk):
        part = slice(start, start + chunk)
        # [a, 3, window] voxel indices along each axis, the window moved into the grid where it
        # would leave it.
        low = (
            torch.ceil(pos[part] / grid.resolution + ((size - 1) / 2 - reach))
            .clamp(0, size - len(window))
            .long()
        )
        voxel = low[:, :, None] + window
        # Centres are exact multiples of the resolution, so that a flip of the axis changes no
        # distance, not even by rounding.
        distance = (voxel - (size - 1) / 2).to(pos.dtype) * grid.resolution - pos[part, :, None]
        # The window may hold a voxel beyond reach on one side only: without it, mirrored atoms give
        # mirrored densities.
        near = distance.abs() <= reach * grid.resolution
        x, y, z = (torch.exp(-((distance / width) ** 2)) * near).unbind(1)
        density = x[:, :, None, None] * (y[:, None, :, None] * z[:, None, None, :])
        i, j, k = voxel.unbind(1)
        index = (first[part, None] + i * size**2)[:, :, None, None] + (
            (j * size)[:, :, None] + k[:, None, :]
        )[:, None]
        touched.append(index.flatten())
        logarithm.index_add_(0, touched[-1], torch.log1p(-density).flatten())
    if touched:
        # Windows fill a small part of the grid, and where two overlap both write the same value.
        windows = torch.cat(touched)
        logarithm[windows] = -torch.expm1(logarithm[windows])
    return logarithm.view(n_samples, channels, size, size, size)
