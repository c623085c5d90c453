"""Force-field data in memory: splits that share flat tensors, with energies referenced per
element."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equivbench.tasks.base import Card, TaskData
from equivbench.tasks.forcefield.table import read
from equivbench.tasks.ragged import SPLITS, RaggedTable
from equivbench.tasks.splits import RaggedSplit


class ForceFieldSplit(RaggedSplit):
    """One split of molecules with their forces and energies.

    Parameters
    ----------
    table
        Of all splits.
    energy
        [samples] eV, referenced per element (:func:`without_reference`).
    chosen
        [chosen] int64, the samples of this split.
    """

    def __init__(self, table: RaggedTable, energy: NDArray[np.float64], chosen: Tensor) -> None:
        first, counts = torch.from_numpy(table.first), torch.from_numpy(table.counts)
        super().__init__(
            first, counts, torch.from_numpy(table["molecule"].astype(np.int64)), chosen
        )
        self._z = torch.from_numpy(table["z"])
        self._pos, self._forces = torch.from_numpy(table["pos"]), torch.from_numpy(table["forces"])
        self._energy = torch.from_numpy(energy.astype(np.float32))[chosen]

    def collate(self, indices: Tensor) -> dict[str, Tensor]:
        """The samples at ``indices`` [n]: z, pos, batch and forces with molecules concatenated,
        energy [n]."""
        batch, rows = self.items_of(indices)
        return {
            "z": self._z[rows].long(),
            "pos": self._pos[rows],
            "batch": batch,
            "forces": self._forces[rows],
            "energy": self._energy[indices],
        }


def without_reference(table: RaggedTable) -> NDArray[np.float64]:
    """[samples] eV: total energies less the per-element energies that fit the training split best
    in least squares.

    Elements that the training split lacks, and directions that it leaves open, get the least-norm
    solution.
    """
    elements = np.flatnonzero(np.bincount(table["z"], minlength=256))
    column = np.zeros(256, dtype=np.int64)
    column[elements] = np.arange(len(elements))
    samples = len(table.counts)
    owner = np.repeat(np.arange(samples), table.counts)
    cells = np.bincount(
        owner * len(elements) + column[table["z"]], minlength=samples * len(elements)
    )
    counts = cells.reshape(samples, len(elements)).astype(np.float64)
    train = table["split"] == SPLITS.index("train")
    reference = np.linalg.lstsq(counts[train], table["energy"][train], rcond=None)[0]
    return np.asarray(table["energy"] - counts @ reference)


def load(path: Path) -> TaskData:
    """The data set at ``path``, energies referenced per element on its training split.

    Raises ``FailedError`` if the file or its card is missing, cut short or changed.
    """
    table, card = read(path)
    energy = without_reference(table)
    train, validation, test = (
        ForceFieldSplit(table, energy, torch.from_numpy(np.flatnonzero(table["split"] == code)))
        for code in range(len(SPLITS))
    )
    identity = Card(path.stem, card["version"], card["sha256"], table.sizes())
    return TaskData(train, validation, test, identity)
