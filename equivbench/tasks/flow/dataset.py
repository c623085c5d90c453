"""Backbones in memory: splits that share flat tensors, padded and centred batches, and windows of
short length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equivbench.tasks.base import Card, TaskData
from equivbench.tasks.flow.archive import PER_ANGSTROM, RESIDUES, Archive, read
from equivbench.tasks.molecules import numbered
from equivbench.tasks.splits import SPLITS

PAD = 8
"""Lengths are padded to a multiple: few shapes to compile for, and none that is odd for a GPU's
matrix units."""
CROP = 64
"""Residues of a window of ``ca-crops-64``."""


class Backbones:
    """One split: a choice of samples out of flat tensors that all splits of a data set share.

    Parameters
    ----------
    ca
        [residues, 3] float32, nm, of all samples one after another.
    first, length, cluster
        [samples] int64: a sample's first row of ``ca``, its residues, its cluster.
    chosen
        [chosen] int64, the samples of this split.
    """

    def __init__(
        self, ca: Tensor, first: Tensor, length: Tensor, cluster: Tensor, chosen: Tensor
    ) -> None:
        self._ca, self._first, self._length = ca, first[chosen], length[chosen]
        self.cluster = cluster[chosen]
        """[chosen] int64: the cluster of each sample, numbered over the whole data set."""

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._first)

    @property
    def lengths(self) -> Tensor:
        """[samples] int64: the residues of each sample."""
        return self._length

    @property
    def groups(self) -> Tensor:
        """[samples] int64: the cluster of each sample, numbered from 0 in this split."""
        return numbered(self.cluster)

    def collate(self, indices: Tensor) -> dict[str, Tensor]:
        """The samples at ``indices`` [n], padded to L, the longest of them rounded up to a multiple
        of 8.

        x1 [n, L, 3] float32 nm, centred on the mean of its residues; mask [n, L] bool; residue [n,
        L] int64, from 0 along the sample. All are 0 in the padding.
        """
        first, length = self._first[indices], self._length[indices]
        longest = -(-int(length.max()) // PAD) * PAD
        place = torch.arange(longest)
        mask = place < length[:, None]
        residue = place * mask
        # The rows of the padding, which residue sends to the sample's first one, are masked after
        # the look-up.
        x = self._ca[first[:, None] + residue] * mask[..., None]
        centre = x.sum(1, keepdim=True) / length[:, None, None]
        return {"x1": (x - centre) * mask[..., None], "mask": mask, "residue": residue}


def crops(archive: Archive) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(sample, start in it, residues) of the windows of ``CROP`` residues, one after another, of
    every sample.

    What is left at a sample's end, or a sample that is shorter, counts if it has the fewest
    residues that a sample may have.
    """
    found = [
        (sample, start, min(CROP, residues - start))
        for sample, residues in enumerate(archive.n_residues.tolist())
        for start in range(0, residues, CROP)
        if residues - start >= RESIDUES[0]
    ]
    sample, start, length = np.array(found, dtype=np.int64).T
    return sample, start, length


def load(path: Path) -> TaskData:
    """The data set at ``path``; raises ``FailedError`` if the file or its card is missing, cut
    short or changed."""
    archive, card = read(path)
    sample = np.arange(len(archive.n_residues))
    return _task_data(
        archive, sample, np.zeros_like(sample), archive.n_residues.astype(np.int64), path.stem, card
    )


def load_crops(path: Path, name: str) -> TaskData:
    """Windows of at most 64 residues of the data set at ``path``, in the splits of the samples they
    come from."""
    archive, card = read(path)
    return _task_data(archive, *crops(archive), name, card)


def _task_data(
    archive: Archive,
    sample: NDArray[np.int64],
    start: NDArray[np.int64],
    length: NDArray[np.int64],
    name: str,
    card: dict[str, str],
) -> TaskData:
    first = archive.n_residues.astype(np.int64).cumsum() - archive.n_residues
    split = archive.split[sample]
    shared = (
        # 0.01 A to nm.
        torch.from_numpy(archive.ca.astype(np.float32)) / (10 * PER_ANGSTROM),
        torch.from_numpy(first[sample] + start),
        torch.from_numpy(length),
        torch.from_numpy(archive.cluster[sample].astype(np.int64)),
    )
    train, validation, test = (
        Backbones(*shared, torch.from_numpy(np.flatnonzero(split == code)))
        for code in range(len(SPLITS))
    )
    sizes = {"train": len(train), "validation": len(validation), "test": len(test)}
    return TaskData(train, validation, test, Card(name, card["version"], card["sha256"], sizes))
