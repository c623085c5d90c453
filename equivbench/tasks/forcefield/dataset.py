"""Force-field data in memory: splits that share flat tensors, and energies referenced per
element."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equivbench.tasks.base import Card, TaskData
from equivbench.tasks.forcefield.archive import Archive
from equivbench.tasks.forcefield.storage import read
from equivbench.tasks.molecules import MoleculeSplit
from equivbench.tasks.splits import SPLITS


class Molecules(MoleculeSplit):
    """One split of molecules with their forces and energies.

    Parameters
    ----------
    z, pos, forces
        [atoms] uint8, [atoms, 3] float32 (A), [atoms, 3] float32 (eV/A), of all samples one after
        another.
    energy, n_atoms, molecule
        [samples] float32 (eV, referenced per element), int64, int64.
    chosen
        [chosen] int64, the samples of this split.
    """

    def __init__(
        self,
        z: Tensor,
        pos: Tensor,
        forces: Tensor,
        energy: Tensor,
        n_atoms: Tensor,
        molecule: Tensor,
        chosen: Tensor,
    ) -> None:
        super().__init__(n_atoms, molecule, chosen)
        self._z, self._pos, self._forces, self._energy = z, pos, forces, energy

    def collate(self, indices: Tensor) -> dict[str, Tensor]:
        """The samples at ``indices`` [n]: z, pos, batch and forces with molecules concatenated,
        energy [n]."""
        samples, batch, rows = self._atoms_of(indices)
        return {
            "z": self._z[rows].long(),
            "pos": self._pos[rows],
            "batch": batch,
            "forces": self._forces[rows],
            "energy": self._energy[samples],
        }


def without_reference(archive: Archive) -> NDArray[np.float64]:
    """[samples] eV: total energies less the per-element energies that fit the training split best
    in least squares.

    Elements that the training split lacks, and directions that it leaves open, get the least-norm
    solution.
    """
    elements = np.flatnonzero(np.bincount(archive.z, minlength=256))
    column = np.zeros(256, dtype=np.int64)
    column[elements] = np.arange(len(elements))
    samples = len(archive.n_atoms)
    owner = np.repeat(np.arange(samples), archive.n_atoms)
    cells = np.bincount(
        owner * len(elements) + column[archive.z], minlength=samples * len(elements)
    )
    counts = cells.reshape(samples, len(elements)).astype(np.float64)
    train = archive.split == SPLITS.index("train")
    reference = np.linalg.lstsq(counts[train], archive.energy[train], rcond=None)[0]
    return np.asarray(archive.energy - counts @ reference)


def task_data(archive: Archive, card: Card) -> TaskData:
    """The three splits of ``archive``, energies referenced per element on its training split."""
    shared = (
        torch.from_numpy(archive.z),
        torch.from_numpy(archive.pos),
        torch.from_numpy(archive.forces),
        torch.from_numpy(without_reference(archive).astype(np.float32)),
        torch.from_numpy(archive.n_atoms.astype(np.int64)),
        torch.from_numpy(archive.molecule.astype(np.int64)),
    )
    train, validation, test = (
        Molecules(*shared, chosen=torch.from_numpy(np.flatnonzero(archive.split == code)))
        for code in range(len(SPLITS))
    )
    return TaskData(train, validation, test, card)


def load(path: Path) -> TaskData:
    """The data set at ``path``; raises ``FailedError`` if the file or its card is missing, cut
    short or changed."""
    archive, card = read(path)
    return task_data(archive, Card(path.stem, card["version"], card["sha256"], archive.sizes()))
