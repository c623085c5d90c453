"""The splits of a voxel data set: molecules that share flat tensors, with the grid that they are
shown on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from equivbench.errors import FailedError
from equivbench.tasks.base import Card, TaskData
from equivbench.tasks.molecules import MoleculeSplit
from equivbench.tasks.splits import SPLITS
from equivbench.tasks.voxel.archive import UNIT, Archive, read
from equivbench.tasks.voxel.grid import MARGIN, Grid


class Molecules(MoleculeSplit):
    """One split of conformers, with the grid that they are shown on.

    Parameters
    ----------
    pos, channel
        [atoms, 3] int16 (0.001 A) and [atoms] uint8, of all conformers one after another.
    n_atoms, molecule
        [samples] int64.
    chosen
        [chosen] int64, the samples of this split.
    grid
        What they are voxelised on.
    """

    def __init__(
        self,
        pos: Tensor,
        channel: Tensor,
        n_atoms: Tensor,
        molecule: Tensor,
        chosen: Tensor,
        grid: Grid,
    ) -> None:
        super().__init__(n_atoms, molecule, chosen)
        self._pos, self._channel = pos, channel
        self.grid = grid
        """The same for every sample."""

    def collate(self, indices: Tensor) -> dict[str, Tensor]:
        """The samples at ``indices`` [n], atoms concatenated.

        ``pos`` [atoms, 3] float32 A, ``channel`` and ``batch`` [atoms] int64, ``n_atoms`` [n]
        int64, and ``grid`` [n, 4] float64, each row :meth:`Grid.numbers`.
        """
        samples, batch, rows = self._atoms_of(indices)
        return {
            "pos": self._pos[rows].float() * UNIT,
            "channel": self._channel[rows].long(),
            "batch": batch,
            "n_atoms": self._n_atoms[samples],
            "grid": torch.tensor(self.grid.numbers(), dtype=torch.float64).expand(len(samples), -1),
        }


def task_data(archive: Archive, card: Card, grid: Grid) -> TaskData:
    """The three splits of ``archive`` on ``grid``, without the conformers that it does not hold;
    the card counts the rest.

    Raises ``FailedError`` if a split is left empty.
    """
    fits = np.array([grid.holds(radius) for radius in archive.bounding_radii()], dtype=bool)
    shared = (
        torch.from_numpy(archive.pos),
        torch.from_numpy(archive.channel),
        torch.from_numpy(archive.n_atoms.astype(np.int64)),
        torch.from_numpy(archive.molecule.astype(np.int64)),
    )
    splits = [
        Molecules(
            *shared,
            chosen=torch.from_numpy(np.flatnonzero(fits & (archive.split == code))),
            grid=grid,
        )
        for code in range(len(SPLITS))
    ]
    sizes = {name: len(split) for name, split in zip(SPLITS, splits, strict=True)}
    empty = [name for name, size in sizes.items() if size == 0]
    if empty:
        raise FailedError(
            f"no conformer of {card.name} in {' and '.join(empty)} fits the {grid.box:g} A box of {grid.size}^3 voxels of "
            f"{grid.resolution:g} A less {MARGIN:g} A of margin; choose a larger grid"
        )
    train, validation, test = splits
    return TaskData(train, validation, test, Card(card.name, card.version, card.sha256, sizes))


def load(path: Path, name: str, grid: Grid) -> TaskData:
    """The data set ``name``: the archive at ``path`` on ``grid``.

    Raises ``FailedError`` if the file or its card is missing, cut short or changed, or too few
    conformers fit.
    """
    archive, card = read(path)
    return task_data(archive, Card(name, card["version"], card["sha256"], archive.sizes()), grid)
