"""Small files like SPICE's: a sound one, and others that differ from it in one respect each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WATER = np.array([[0.0, 0.0, 0.0], [1.8, 0.0, 0.0], [-0.5, 1.8, 0.0]])
"""bohr."""
Group = tuple[str, list[int]]


def write_sound(path: Path, extra: Sequence[Group] = (), molecules: int = 40) -> dict[str, Any]:
    """A file of ``molecules`` waters under names of their own and the ``extra`` (SMILES, atomic
    numbers), two conformations each; returns positions, gradients and energies by SMILES."""
    h5py = pytest.importorskip("h5py")
    generator = np.random.default_rng(0)
    written = {}
    waters: list[Group] = [(f"[O:1]([H:2])[H:3].{index}", [8, 1, 1]) for index in range(molecules)]
    with h5py.File(path, "w") as file:
        for index, (smiles, z) in enumerate([*waters, *extra]):
            group = file.create_group(f"m{index}")
            # A lattice of 1.8 bohr, so that no two atoms come near.
            places = 1.8 * np.array([*np.ndindex(3, 3, 3)][: len(z)], dtype=float)
            start = WATER if z == [8, 1, 1] else places
            pos = start + generator.uniform(-0.2, 0.2, (2, len(z), 3))
            gradient = generator.normal(0, 0.03, (2, len(z), 3))
            energy = generator.normal(-100, 1, 2)
            group["atomic_numbers"] = np.array(z, np.int16)
            group["conformations"] = pos.astype(np.float32)
            group["dft_total_energy"] = energy
            group["dft_total_gradient"] = gradient.astype(np.float32)
            group["formation_energy"] = energy
            for name, text in (("smiles", smiles), ("subset", "SPICE Test Set")):
                group.create_dataset(name, data=[text], dtype=h5py.string_dtype())
            written[smiles] = (pos.astype(np.float32), gradient.astype(np.float32), energy)
    return written


def write_changed(path: Path, change: Callable[[Any], object]) -> None:
    """The sound file after ``change`` of the open file."""
    write_sound(path)
    with pytest.importorskip("h5py").File(path, "a") as file:
        change(file)


def replaced(place: str, values: Any) -> Callable[[Any], None]:
    """A change of one array for another."""

    def change(file: Any) -> None:
        del file[place]
        file[place] = values

    return change


def assigned(place: str, index: Any, value: Any) -> Callable[[Any], None]:
    """A change of some values of one array."""

    def change(file: Any) -> None:
        file[place][index] = value

    return change


def stating(**units: str) -> Callable[[Any], None]:
    """A change of every molecule's units attributes, by array."""

    def change(file: Any) -> None:
        for group in file.values():
            for name, unit in units.items():
                group[name].attrs["units"] = unit

    return change


CHARGED: list[Group] = [
    *((f"[N+:1]([H:2])([H:3])([H:4])[H:5].{index}", [7, 1, 1, 1, 1]) for index in range(12)),
]
NEUTRAL_OF_IONS: list[Group] = [(f"[Na+:1].[Cl-:2].{index}", [11, 17]) for index in range(12)]
METHANOL: list[Group] = [
    (f"[H:{a}][C:{b}]([H:{c}])([H:{d}])[O:{e}][H:{f}]", [1, 6, 1, 1, 8, 1])
    for a, b, c, d, e, f in islice(permutations(range(1, 7)), 0, None, 24)
]
"""One molecule under 30 atom maps."""
