"""Force-field archives on disk: what their cards say, and the checks that their arrays agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from equivbench.errors import FailedError
from equivbench.tasks.forcefield.archive import SPLIT_RULE, Archive
from equivbench.tasks.splits import SPLITS
from equivbench.tasks.storage import plain, read_archive, remedy, write_archive

UNITS = {"pos": "A", "forces": "eV/A", "energy": "eV (total)", "z": "atomic number"}


def write(
    archive: Archive,
    out: Path,
    *,
    recipe: Mapping[str, Any],
    licences: Mapping[str, str],
    split_rule: str = SPLIT_RULE,
) -> Path:
    """Write ``out`` (.npz) and its cards, each atomically, the .json last; returns ``out``.

    Raises ``FailedError`` if the folder cannot be written.
    """
    norms = np.linalg.norm(archive.forces, axis=1)
    numbers = np.bincount(archive.z)
    card = {
        "sizes": archive.sizes(),
        "molecules": archive.molecules(),
        "atoms": len(archive.z),
        "elements": {str(number): int(numbers[number]) for number in np.flatnonzero(numbers)},
        "force_component_rms": round(
            float(np.sqrt(np.mean(np.square(archive.forces, dtype=np.float64)))), 4
        ),
        "force_norm_p50_p90_p99_max": [
            round(float(q), 3) for q in np.quantile(norms, [0.5, 0.9, 0.99, 1.0])
        ],
        "units": UNITS,
        "split_rule": split_rule,
        "licences": dict(licences),
        "recipe": dict(recipe),
    }
    return write_archive(out, vars(archive), card, _markdown(card))


def read(path: Path) -> tuple[Archive, dict[str, Any]]:
    """(archive, card) of ``path``; raises ``FailedError`` if a file is missing, cut short, or of
    the wrong content."""
    arrays, card = read_archive(path, [item.name for item in fields(Archive)], "force-field")
    archive = Archive(**arrays)
    atoms, samples = len(archive.z), len(archive.n_atoms)
    shapes = (
        archive.pos.shape,
        archive.forces.shape,
        archive.energy.shape,
        archive.molecule.shape,
        archive.split.shape,
    )
    if archive.n_atoms.sum() != atoms or shapes != (
        (atoms, 3),
        (atoms, 3),
        (samples,),
        (samples,),
        (samples,),
    ):
        raise FailedError(f"the arrays of {path} disagree in length; {remedy(path)}")
    return archive, card


def _markdown(card: Mapping[str, Any]) -> str:
    counts = "\n".join(
        f"| {split} | {card['molecules'][split]} | {card['sizes'][split]} |" for split in SPLITS
    )
    p50, p90, p99, most = card["force_norm_p50_p90_p99_max"]
    return f"""
| split | molecules | conformations |
|---|---|---|
{counts}

{card["atoms"]} atoms, {{bytes}} bytes, SHA-256 `{{sha256}}`.
Atoms per atomic number: {plain(card["elements"])}.
Force component RMS {card["force_component_rms"]} eV/A; |F| p50/p90/p99/max {p50}/{p90}/{p99}/{most} eV/A.
"""
