"""Force-field samples as flat arrays, how they are gathered, and the split by molecule. Imports no
torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equivbench.errors import FailedError
from equivbench.tasks.splits import SPLITS, rule, samples_in, split_of, units_in, without_samples

SPLIT_RULE = rule("by molecule", "the canonical SMILES or the name that the source gives")


@dataclass(frozen=True)
class Archive:
    """Conformations with concatenated atoms; the unit of independence is the molecule.

    z [atoms] uint8; pos [atoms, 3] float32 A; forces [atoms, 3] float32 eV/A; energy [samples]
    float64 eV; n_atoms [samples] int32; molecule [samples] int32, into names [molecules] (bytes);
    split [samples] uint8, into ``SPLITS``.
    """

    z: NDArray[np.uint8]
    pos: NDArray[np.float32]
    forces: NDArray[np.float32]
    energy: NDArray[np.float64]
    n_atoms: NDArray[np.int32]
    molecule: NDArray[np.int32]
    split: NDArray[np.uint8]
    names: NDArray[np.bytes_]

    def sizes(self) -> dict[str, int]:
        """Samples per split."""
        return samples_in(self.split)

    def molecules(self) -> dict[str, int]:
        """Distinct molecules per split."""
        return units_in(self.molecule, self.split)


class Builder:
    """Gathers conformations, molecule by molecule, into an :class:`Archive`; memory is that of the
    archive."""

    def __init__(self) -> None:
        self._z, self._pos, self._forces = bytearray(), bytearray(), bytearray()
        self._energy: list[NDArray[np.float64]] = []
        self._n_atoms: list[NDArray[np.int32]] = []
        self._molecule: list[NDArray[np.int32]] = []
        self._split: list[NDArray[np.uint8]] = []
        self._names: dict[str, int] = {}

    def add(
        self,
        name: str,
        z: NDArray[np.integer],
        pos: NDArray[np.floating],
        forces: NDArray[np.floating],
        energy: NDArray[np.floating],
        split: str | None = None,
    ) -> None:
        """Add k conformations of the molecule ``name``: z [atoms], pos (A) and forces (eV/A) [k,
        atoms, 3], energy [k] (eV).

        ``split`` is None for the split by name. Conformations that hold a NaN or an infinity are
        left out.
        """
        finite = (
            np.isfinite(pos).all((1, 2)) & np.isfinite(forces).all((1, 2)) & np.isfinite(energy)
        )
        k = int(finite.sum())
        code = SPLITS.index(split_of(name) if split is None else split)
        self._z += np.tile(z.astype(np.uint8), k).tobytes()
        self._pos += pos[finite].astype(np.float32).tobytes()
        self._forces += forces[finite].astype(np.float32).tobytes()
        self._energy.append(energy[finite].astype(np.float64))
        self._n_atoms.append(np.full(k, len(z), dtype=np.int32))
        self._molecule.append(
            np.full(k, self._names.setdefault(name, len(self._names)), dtype=np.int32)
        )
        self._split.append(np.full(k, code, dtype=np.uint8))

    def finish(self, source: str) -> Archive:
        """All that was added; raises ``FailedError``, naming ``source``, if a split has no
        sample."""
        archive = Archive(
            z=np.frombuffer(self._z, dtype=np.uint8),
            pos=np.frombuffer(self._pos, dtype=np.float32).reshape(-1, 3),
            forces=np.frombuffer(self._forces, dtype=np.float32).reshape(-1, 3),
            energy=np.concatenate([np.zeros(0), *self._energy]),
            n_atoms=np.concatenate([np.zeros(0, dtype=np.int32), *self._n_atoms]),
            molecule=np.concatenate([np.zeros(0, dtype=np.int32), *self._molecule]),
            split=np.concatenate([np.zeros(0, dtype=np.uint8), *self._split]),
            names=np.array([name.encode() for name in self._names], dtype=np.bytes_),
        )
        empty = without_samples(archive.split)
        if empty:
            raise FailedError(
                f"{source} gives no usable sample for {' and '.join(empty)}; check that it is the whole published file"
            )
        return archive
