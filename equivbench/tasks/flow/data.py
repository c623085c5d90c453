"""Backbones in memory: padded and centred batches, and windows of short length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from equivbench.tasks.base import TaskData
from equivbench.tasks.flow.table import LAYOUT, PER_ANGSTROM, RESIDUES
from equivbench.tasks.splits import RaggedSplit, ragged_data
from equivbench.tasks.storage import RaggedTable

PAD = 8
"""Lengths are padded to a multiple: few shapes to compile for, and none that is odd for a GPU's
matrix units."""
CROP = 64
"""Residues of a window of ``ca-crops-64``."""


class BackboneSplit(RaggedSplit):
    """One split of backbones, or of windows of them."""

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
        # the look-up. From .01 A to nm.
        x = self.flat["ca"][first[:, None] + residue].float() / (10 * PER_ANGSTROM)
        x = x * mask[..., None]
        centre = x.sum(1, keepdim=True) / length[:, None, None]
        return {"x1": (x - centre) * mask[..., None], "mask": mask, "residue": residue}


def crops(table: RaggedTable) -> RaggedTable:
    """The windows of ``CROP`` residues, one after another, of every sample, in its split.

    What is left at a sample's end, or a sample that is shorter, counts if it has the fewest
    residues that a sample may have.
    """
    found = [
        (sample, start, min(CROP, residues - start))
        for sample, residues in enumerate(table.counts.tolist())
        for start in range(0, residues, CROP)
        if residues - start >= RESIDUES[0]
    ]
    sample, start, length = np.array(found, dtype=np.int64).T
    first = table.first[sample] + start
    rows = np.concatenate([np.arange(a, a + n) for a, n in zip(first, length, strict=True)])
    columns = {
        name: table[name][rows if column.per == "item" else sample]
        for name, column in LAYOUT.columns.items()
    }
    return RaggedTable(LAYOUT, {**columns, "n_residues": length})


def load(path: Path, crops_name: str | None = None) -> TaskData:
    """The data set at ``path``, or called ``crops_name`` its windows of at most 64 residues.

    Raises ``FailedError`` if the file or its card is missing, cut short or changed.
    """
    table, card = LAYOUT.read(path)
    if crops_name is not None:
        table = crops(table)
    return ragged_data(table, card, crops_name or path.stem, BackboneSplit)
