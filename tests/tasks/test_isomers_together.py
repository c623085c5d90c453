"""Sets that are generated on request keep the stereoisomers of a molecule in one split; the shipped
ones, made before, draw a split for each. Without rdkit: what it would make is made up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equivbench.tasks.base import SPLITS
from equivbench.tasks.forcefield import generate as forcefield
from equivbench.tasks.forcefield.table import LAYOUT as CONFORMATIONS
from equivbench.tasks.storage import RaggedTable, split_of
from equivbench.tasks.voxel import generate as voxel
from equivbench.tasks.voxel.table import LAYOUT as CONFORMERS
from equivbench.tasks.voxel.table import SMALL

FIRST = [f"C[C@H](F){'C' * length}O" for length in range(1, 81)]
SECOND = [each.replace("@", "@@") for each in FIRST]
POOL = [*FIRST, *SECOND]
POS = np.array([[0.0, 0.0, 0.0], [1.5, 0.0, 0.0]])


def conformations(smiles: str) -> tuple[Any, ...]:
    """As one of the force field's molecules, of two atoms, at each temperature."""
    kinds = len(forcefield.TEMPERATURES)
    pos = np.stack([POS] * kinds).astype(np.float32)
    return smiles, np.array([6, 6], dtype=np.uint8), pos, np.zeros_like(pos), np.zeros(kinds)


def conformer(smiles: str) -> tuple[Any, ...]:
    return smiles, np.array([6, 6], dtype=np.uint8), POS


def pretend(
    monkeypatch: pytest.MonkeyPatch, module: Any, made: Callable[[str], tuple[Any, ...]]
) -> None:
    def in_processes(_: Any, rest: Sequence[str], *__: Any) -> Iterator[tuple[Any, ...]]:
        yield from map(made, rest)

    monkeypatch.setattr(module, "in_processes", in_processes)
    monkeypatch.setattr(module, "pool", lambda *_: POOL)
    monkeypatch.setattr(module, "recipe", lambda *_: {"tools": {}})


def splits(table: RaggedTable) -> dict[str, set[str]]:
    """Of each unit, by its name."""
    found: dict[str, set[str]] = {}
    for unit, code in zip(table["molecule"], table["split"], strict=True):
        found.setdefault(table["names"][unit].decode(), set()).add(SPLITS[code])
    return found


def test_the_larger_set_of_the_force_field_does_and_the_smaller_ones_are_what_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, forcefield, conformations)
    monkeypatch.setattr(forcefield, "further_pool", lambda *_: [])
    wheel = tmp_path / "wheel"
    wheel.touch()
    monkeypatch.setattr(forcefield, "published", lambda: wheel)
    samples = len(POOL) * len(forcefield.TEMPERATURES)
    before = forcefield.generate(samples, tmp_path / "before.npz")
    beyond = forcefield.generate_beyond(samples, tmp_path / "beyond.npz", further=[])
    each_apart = {name: {split_of(name)} for name in POOL}
    assert splits(CONFORMATIONS.read(before)[0]) == each_apart
    table, card = CONFORMATIONS.read(beyond)
    assert splits(table) == {name: {split_of(name)} for name in FIRST}
    assert len(table["molecule"]) == samples
    assert "stereoisomers together" in card["split_rule"]


def test_the_larger_set_of_conformers_does_and_the_shipped_one_is_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, voxel, conformer)
    made = {
        together: voxel.generate(
            len(POOL), tmp_path / f"{together}.npz", grid=SMALL, isomers_together=together
        )
        for together in (False, True)
    }
    each_apart = {name: {split_of(name)} for name in POOL}
    assert splits(CONFORMERS.read(made[False])[0]) == each_apart
    table, card = CONFORMERS.read(made[True])
    assert splits(table) == {name: {split_of(name)} for name in FIRST}
    assert "stereoisomers together" in card["split_rule"]
