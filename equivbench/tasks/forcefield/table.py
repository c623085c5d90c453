"""The table of force-field conformations: its columns, how they are gathered, and what the cards
say of them. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.errors import FailedError
from equivbench.tasks.ragged import Layout, RaggedColumn, RaggedTable, TableBuilder
from equivbench.tasks.ragged import split_rule as rule_of
from equivbench.tasks.storage import plain, read_table, write_table

LAYOUT = Layout(
    kind="force-field",
    columns={
        "z": RaggedColumn("item", np.uint8),
        "pos": RaggedColumn("item", np.float32, (3,)),
        "forces": RaggedColumn("item", np.float32, (3,)),
        "energy": RaggedColumn("sample", np.float64),
        "n_atoms": RaggedColumn("sample", np.int32),
        "molecule": RaggedColumn("sample", np.int32),
        "split": RaggedColumn("sample", np.uint8),
        "names": RaggedColumn("unit", np.bytes_),
    },
    counts="n_atoms",
    unit="molecule",
    items="atoms",
    samples="conformations",
    units="molecules",
)
UNITS = {"pos": "A", "forces": "eV/A", "energy": "eV (total)", "z": "atomic number"}
SPLIT_RULE = rule_of("by molecule", "the canonical SMILES or the name that the source gives")


class ConformationBuilder:
    """Gathers labelled conformations, molecule by molecule; memory is that of the table."""

    def __init__(self) -> None:
        self._table = TableBuilder(LAYOUT)

    def add(
        self,
        name: str,
        z: NDArray[np.integer],
        pos: NDArray[np.floating],
        forces: NDArray[np.floating],
        energy: NDArray[np.floating],
        split: str | None = None,
    ) -> None:
        """Add k conformations of the molecule ``name``; those that hold a NaN or an infinity are
        left out.

        Parameters
        ----------
        z
            [atoms] atomic numbers.
        pos, forces
            [k, atoms, 3] in A and eV/A.
        energy
            [k] total energies in eV.
        split
            None for the split that the name draws.
        """
        finite = (
            np.isfinite(pos).all((1, 2)) & np.isfinite(forces).all((1, 2)) & np.isfinite(energy)
        )
        kept = int(finite.sum())
        self._table.add(
            name,
            np.full(kept, len(z)),
            split,
            z=np.tile(z, kept),
            pos=pos[finite],
            forces=forces[finite],
            energy=energy[finite],
        )

    def finish(self, source: str) -> RaggedTable:
        """All that was added; raises ``FailedError``, naming ``source``, if a split has no
        sample."""
        table = self._table.finish()
        empty = table.empty_splits()
        if empty:
            raise FailedError(
                f"{source} gives no usable sample for {' and '.join(empty)}; check that it is the "
                "whole published file"
            )
        return table


def write(
    table: RaggedTable,
    out: Path,
    *,
    recipe: Mapping[str, Any],
    licences: Mapping[str, str],
    split_rule: str = SPLIT_RULE,
) -> Path:
    """Write ``out`` (.npz) and its cards, each atomically, the .json last; returns ``out``.

    Raises ``FailedError`` if the folder cannot be written.
    """
    norms = np.linalg.norm(table["forces"], axis=1)
    numbers = np.bincount(table["z"])
    elements = {str(number): int(numbers[number]) for number in np.flatnonzero(numbers)}
    rms = round(float(np.sqrt(np.mean(np.square(table["forces"], dtype=np.float64)))), 4)
    quantiles = [round(float(q), 3) for q in np.quantile(norms, [0.5, 0.9, 0.99, 1.0])]
    facts = {
        "elements": elements,
        "force_component_rms": rms,
        "force_norm_p50_p90_p99_max": quantiles,
    }
    summary = f"""{len(table["z"])} atoms, {{bytes}} bytes, SHA-256 `{{sha256}}`.
Atoms per atomic number: {plain(elements)}.
Force component RMS {rms} eV/A; |F| p50/p90/p99/max {"/".join(map(str, quantiles))} eV/A."""
    return write_table(
        table,
        out,
        facts,
        summary,
        units=UNITS,
        split_rule=split_rule,
        licences=licences,
        recipe=recipe,
    )


def read(path: Path) -> tuple[RaggedTable, dict[str, Any]]:
    """(table, card) of ``path``; raises ``FailedError`` if a file is missing, cut short, or of the
    wrong content."""
    return read_table(path, LAYOUT)
