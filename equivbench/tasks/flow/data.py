"""Backbones in memory: splits that share flat tensors, padded and centred batches, and windows of
short length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equivbench.tasks.base import Card, TaskData
from equivbench.tasks.flow.table import PER_ANGSTROM, RESIDUES, read
from equivbench.tasks.ragged import SPLITS, RaggedTable
from equivbench.tasks.splits import RaggedSplit

PAD = 8
"""Lengths are padded to a multiple: few shapes to compile for, and none that is odd for a GPU's
matrix units."""
CROP = 64
"""Residues of a window of ``ca-crops-64``."""


class BackboneSplit(RaggedSplit):
    """One split of backbones, or of windows of them.

    Parameters
    ----------
    ca
        [residues, 3] float32, nm, of all samples one after another.
    first, counts, unit
        [samples] int64: a sample's first row of ``ca``, its residues, its cluster.
    chosen
        [chosen] int64, the samples of this split.
    """

    def __init__(
        self, ca: Tensor, first: Tensor, counts: Tensor, unit: Tensor, chosen: Tensor
    ) -> None:
        super().__init__(first, counts, unit, chosen)
        self._ca = ca

    def collate(self, indices: Tensor) -> dict[str, Tensor]:
        """The samples at ``indices`` [n], padded to L, the longest of them rounded up to a multiple
        of 8.

        x1 [n, L, 3] float32 nm, centred on the mean of its residues; mask [n, L] bool; residue [n,
        L] int64, from 0 along the sample. All are 0 in the padding.
        """
        first, length = self.first[indices], self.counts[indices]
        longest = -(-int(length.max()) // PAD) * PAD
        place = torch.arange(longest)
        mask = place < length[:, None]
        residue = place * mask
        # The rows of the padding, which residue sends to the sample's first one, are masked after
        # the look-up.
        x = self._ca[first[:, None] + residue] * mask[..., None]
        centre = x.sum(1, keepdim=True) / length[:, None, None]
        return {"x1": (x - centre) * mask[..., None], "mask": mask, "residue": residue}


def crops(table: RaggedTable) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(sample, start in it, residues) of the windows of ``CROP`` residues, one after another, of
    every sample.

    What is left at a sample's end, or a sample that is shorter, counts if it has the fewest
    residues that a sample may have.
    """
    found = [
        (sample, start, min(CROP, residues - start))
        for sample, residues in enumerate(table["n_residues"].tolist())
        for start in range(0, residues, CROP)
        if residues - start >= RESIDUES[0]
    ]
    sample, start, length = np.array(found, dtype=np.int64).T
    return sample, start, length


def load(path: Path) -> TaskData:
    """The data set at ``path``; raises ``FailedError`` if the file or its card is missing, cut
    short or changed."""
    table, card = read(path)
    sample = np.arange(len(table.counts))
    return _task_data(table, sample, np.zeros_like(sample), table.counts, path.stem, card)


def load_crops(path: Path, name: str) -> TaskData:
    """Windows of at most 64 residues of the data set at ``path``, in the splits of the samples they
    come from."""
    table, card = read(path)
    return _task_data(table, *crops(table), name, card)


def _task_data(
    table: RaggedTable,
    sample: NDArray[np.int64],
    start: NDArray[np.int64],
    length: NDArray[np.int64],
    name: str,
    card: dict[str, Any],
) -> TaskData:
    """The windows of ``length`` residues from ``start`` on in each ``sample``, all [windows]."""
    split = table["split"][sample]
    shared = (
        # 0.01 A to nm.
        torch.from_numpy(table["ca"].astype(np.float32)) / (10 * PER_ANGSTROM),
        torch.from_numpy(table.first[sample] + start),
        torch.from_numpy(length),
        torch.from_numpy(table["cluster"][sample].astype(np.int64)),
    )
    train, validation, test = (
        BackboneSplit(*shared, torch.from_numpy(np.flatnonzero(split == code)))
        for code in range(len(SPLITS))
    )
    sizes = {"train": len(train), "validation": len(validation), "test": len(test)}
    return TaskData(train, validation, test, Card(name, card["version"], card["sha256"], sizes))
