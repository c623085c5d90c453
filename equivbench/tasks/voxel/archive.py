"""Conformers as flat arrays on disk and in memory, and how they are gathered for a grid. Imports no
torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.errors import FailedError
from equivbench.tasks.splits import SPLITS, rule, samples_in, split_of, units_in, without_samples
from equivbench.tasks.storage import plain, read_archive, remedy, write_archive
from equivbench.tasks.voxel.ball import smallest_ball
from equivbench.tasks.voxel.grid import ELEMENTS, MARGIN, NUMBERS, Grid

UNIT = 1e-3
"""A: one step of the stored positions."""
SPLIT_RULE = rule("by molecule", "the canonical SMILES")


@dataclass(frozen=True)
class Archive:
    """Conformers with concatenated atoms; the unit of independence is the molecule.

    pos [atoms, 3] int16, in ``UNIT``, from the centre of the conformer's smallest ball; channel
    [atoms] uint8, into ``ELEMENTS``; n_atoms [samples] int16; molecule [samples] int32, into names
    [molecules] (bytes); split [samples] uint8, into ``SPLITS``.
    """

    pos: NDArray[np.int16]
    channel: NDArray[np.uint8]
    n_atoms: NDArray[np.int16]
    molecule: NDArray[np.int32]
    split: NDArray[np.uint8]
    names: NDArray[np.bytes_]

    def sizes(self) -> dict[str, int]:
        """Samples per split."""
        return samples_in(self.split)

    def molecules(self) -> dict[str, int]:
        """Distinct molecules per split."""
        return units_in(self.molecule, self.split)

    def bounding_radii(self) -> NDArray[np.float64]:
        """[samples] A: of the sphere about the origin that holds the conformer."""
        distances = UNIT * np.linalg.norm(self.pos.astype(np.float64), axis=1)
        first = np.cumsum(self.n_atoms, dtype=np.int64) - self.n_atoms
        return np.maximum.reduceat(distances, first) if len(first) else np.zeros(0)


class Builder:
    """Gathers conformers into an :class:`Archive`; those that ``grid`` cannot show at every
    rotation are left out, counted."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._pos, self._channel = bytearray(), bytearray()
        self._n_atoms: list[int] = []
        self._molecule: list[int] = []
        self._split: list[int] = []
        self._names: dict[str, int] = {}
        self.left_out: Counter[str] = Counter()
        """Conformers left out, by reason."""

    def add(
        self, name: str, z: NDArray[np.integer], pos: NDArray[np.floating], split: str | None = None
    ) -> bool:
        """Add a conformer of the molecule ``name``: z [atoms], pos [atoms, 3] A; whether it was
        kept.

        ``split`` is None for the split by name.
        """
        if not len(z) or not np.isfinite(pos).all():
            self.left_out["without sound positions"] += 1
            return False
        if not np.isin(z, NUMBERS).all():
            self.left_out[f"with elements other than {' '.join(ELEMENTS)}"] += 1
            return False
        centre, radius = smallest_ball(pos)
        if not self._grid.holds(radius + UNIT):
            self.left_out[
                f"too large for the {self._grid.box:g} A box less {MARGIN:g} A of margin"
            ] += 1
            return False
        self._pos += np.rint((pos - centre) / UNIT).astype(np.int16).tobytes()
        self._channel += np.searchsorted(NUMBERS, z).astype(np.uint8).tobytes()
        self._n_atoms.append(len(z))
        self._molecule.append(self._names.setdefault(name, len(self._names)))
        self._split.append(SPLITS.index(split_of(name) if split is None else split))
        return True

    def finish(self, source: str) -> Archive:
        """All that was kept; raises ``FailedError``, naming ``source``, if a split has no
        sample."""
        archive = Archive(
            pos=np.frombuffer(self._pos, dtype=np.int16).reshape(-1, 3),
            channel=np.frombuffer(self._channel, dtype=np.uint8),
            n_atoms=np.array(self._n_atoms, dtype=np.int16),
            molecule=np.array(self._molecule, dtype=np.int32),
            split=np.array(self._split, dtype=np.uint8),
            names=np.array([name.encode() for name in self._names], dtype=np.bytes_),
        )
        empty = without_samples(archive.split)
        if empty:
            raise FailedError(
                f"{source} gives no usable conformer for {' and '.join(empty)}"
                + (f" ({self.excuse()})" if self.left_out else "")
                + "; check that it is the whole published set"
            )
        return archive

    def excuse(self) -> str:
        """What was left out and why, for people."""
        return ", ".join(f"{count} {reason}" for reason, count in sorted(self.left_out.items()))


def write(
    archive: Archive,
    out: Path,
    grid: Grid,
    *,
    recipe: Mapping[str, Any],
    licences: Mapping[str, str],
    split_rule: str = SPLIT_RULE,
) -> Path:
    """Write ``out`` (.npz) and its cards, each atomically; returns ``out``. Raises ``FailedError``
    if it cannot be written."""
    counts = np.bincount(archive.channel, minlength=len(ELEMENTS))
    card: dict[str, Any] = {
        "sizes": archive.sizes(),
        "molecules": archive.molecules(),
        "atoms": len(archive.channel),
        "elements": dict(zip(ELEMENTS, counts.tolist(), strict=True)),
        "bounding_radius_p50_p90_max": [
            round(float(q), 3) for q in np.quantile(archive.bounding_radii(), [0.5, 0.9, 1.0])
        ],
        "box": f"{grid.box:g} A; smallest ball plus {MARGIN:g} A of margin fits it",
        "units": {
            "pos": "0.001 A, from the centre of the smallest ball",
            "channel": "element: " + " ".join(ELEMENTS),
        },
        "split_rule": split_rule,
        "licences": dict(licences),
        "recipe": dict(recipe),
    }
    rows = "\n".join(
        f"| {split} | {card['molecules'][split]} | {card['sizes'][split]} |" for split in SPLITS
    )
    p50, p90, most = card["bounding_radius_p50_p90_max"]
    markdown = f"""
| split | molecules | conformers |
|---|---|---|
{rows}

{card["atoms"]} atoms, {{bytes}} bytes, SHA-256 `{{sha256}}`.
Atoms per element: {plain(card["elements"])}.
Radius of the smallest ball p50/p90/max {p50}/{p90}/{most} A; chosen for a box of {card["box"]}.
"""
    return write_archive(out, vars(archive), card, markdown)


def read(path: Path) -> tuple[Archive, dict[str, Any]]:
    """(archive, card) of ``path``; raises ``FailedError`` if a file is missing, cut short, or of
    the wrong content."""
    arrays, card = read_archive(path, [item.name for item in fields(Archive)], "conformer")
    archive = Archive(**arrays)
    atoms, samples = len(archive.channel), len(archive.n_atoms)
    shapes = (archive.pos.shape, archive.molecule.shape, archive.split.shape)
    if archive.n_atoms.sum() != atoms or shapes != ((atoms, 3), (samples,), (samples,)):
        raise FailedError(f"the arrays of {path} disagree in length; {remedy(path)}")
    return archive, card
