"""What every split of molecules shares: which samples it holds, whose they are, and where their
atoms lie in flat tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def numbered(labels: Tensor) -> Tensor:
    """[samples] int64: ``labels`` [samples] renumbered from 0 in their order, as a split's
    ``groups`` are."""
    found: Tensor = torch.unique(labels, return_inverse=True)[1]
    return found


class MoleculeSplit:
    """A choice of samples out of flat tensors that all splits of a data set share.

    Parameters
    ----------
    n_atoms, molecule
        [samples] int64, of the whole data set: the atoms of each sample, which follow one another
        in the flat tensors, and its molecule.
    chosen
        [chosen] int64, the samples of this split.
    """

    def __init__(self, n_atoms: Tensor, molecule: Tensor, chosen: Tensor) -> None:
        self._n_atoms, self._chosen = n_atoms, chosen
        self._first = n_atoms.cumsum(0) - n_atoms
        self.molecule = molecule[chosen]
        """[chosen] int64: the molecule of each sample, numbered over the whole data set."""

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._chosen)

    @property
    def groups(self) -> Tensor:
        """[samples] int64: the molecule of each sample, numbered from 0 in this split."""
        return numbered(self.molecule)

    def _atoms_of(self, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(samples [n] of the data set, batch [atoms] sorted index into them, rows [atoms] of the
        flat tensors)."""
        samples = self._chosen[indices]
        n_atoms = self._n_atoms[samples]
        batch = torch.repeat_interleave(n_atoms)
        # Atom a of the batch is row first[s] + (a - atoms before its molecule in the batch) of the
        # flat tensors.
        shift = self._first[samples] - (n_atoms.cumsum(0) - n_atoms)
        return samples, batch, torch.arange(len(batch)) + shift[batch]
