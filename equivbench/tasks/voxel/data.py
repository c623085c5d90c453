"""Voxel data in memory: splits of molecules that share flat tensors, with the grid that they are
shown on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from equivbench.errors import FailedError
from equivbench.tasks.base import Card, TaskData
from equivbench.tasks.ragged import SPLITS, RaggedTable
from equivbench.tasks.splits import RaggedSplit
from equivbench.tasks.voxel.grid import MARGIN, Grid
from equivbench.tasks.voxel.table import UNIT, bounding_radii, read


class VoxelSplit(RaggedSplit):
    """One split of conformers, with the grid that they are shown on.

    Parameters
    ----------
    table
        Of all splits.
    chosen
        [chosen] int64, the samples of this split.
    grid
        What they are voxelised on.
    """

    def __init__(self, table: RaggedTable, chosen: Tensor, grid: Grid) -> None:
        first, counts = torch.from_numpy(table.first), torch.from_numpy(table.counts)
        super().__init__(
            first, counts, torch.from_numpy(table["molecule"].astype(np.int64)), chosen
        )
        self._pos, self._channel = (
            torch.from_numpy(table["pos"]),
            torch.from_numpy(table["channel"]),
        )
        self.grid = grid
        """The same for every sample."""

    def collate(self, indices: Tensor) -> dict[str, Tensor]:
        """The samples at ``indices`` [n], atoms concatenated.

        ``pos`` [atoms, 3] float32 A, ``channel`` and ``batch`` [atoms] int64, ``n_atoms`` [n]
        int64, and ``grid`` [n, 4] float64, each row :meth:`Grid.numbers`.
        """
        batch, rows = self.items_of(indices)
        grid = torch.tensor(self.grid.numbers(), dtype=torch.float64)
        return {
            "pos": self._pos[rows].float() * UNIT,
            "channel": self._channel[rows].long(),
            "batch": batch,
            "n_atoms": self.counts[indices],
            "grid": grid.expand(len(indices), -1),
        }


def task_data(table: RaggedTable, card: Card, grid: Grid) -> TaskData:
    """The three splits of ``table`` on ``grid``, without the conformers that it does not hold; the
    card counts the rest.

    Raises ``FailedError`` if a split is left empty.
    """
    fits = np.array([grid.holds(radius) for radius in bounding_radii(table)], dtype=bool)
    splits = {
        name: VoxelSplit(
            table, torch.from_numpy(np.flatnonzero(fits & (table["split"] == code))), grid
        )
        for code, name in enumerate(SPLITS)
    }
    sizes = {name: len(split) for name, split in splits.items()}
    empty = [name for name, size in sizes.items() if size == 0]
    if empty:
        raise FailedError(
            f"no conformer of {card.name} in {' and '.join(empty)} fits the {grid.box:g} A box of "
            f"{grid.size}^3 voxels of {grid.resolution:g} A less {MARGIN:g} A of margin; choose a "
            "larger grid"
        )
    return TaskData(**splits, card=Card(card.name, card.version, card.sha256, sizes))


def load(path: Path, name: str, grid: Grid) -> TaskData:
    """The data set ``name``: the table at ``path`` on ``grid``.

    Raises ``FailedError`` if the file or its card is missing, cut short or changed, or too few
    conformers fit.
    """
    table, card = read(path)
    return task_data(table, Card(name, card["version"], card["sha256"], table.sizes()), grid)
