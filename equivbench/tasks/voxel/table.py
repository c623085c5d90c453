"""The table of conformers: its columns, how those that fit a grid are gathered, and what the cards
say of them. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.errors import FailedError
from equivbench.tasks.ragged import Layout, RaggedColumn, RaggedTable, TableBuilder
from equivbench.tasks.ragged import split_rule as rule_of
from equivbench.tasks.storage import plain, read_table, write_table
from equivbench.tasks.voxel.ball import smallest_ball
from equivbench.tasks.voxel.grid import ELEMENTS, MARGIN, NUMBERS, Grid

UNIT = 1e-3
"""A: one step of the stored positions, which are about the centre of the conformer's smallest
ball."""
LAYOUT = Layout(
    kind="conformer",
    columns={
        "pos": RaggedColumn("item", np.int16, (3,)),
        "channel": RaggedColumn("item", np.uint8),
        "n_atoms": RaggedColumn("sample", np.int16),
        "molecule": RaggedColumn("sample", np.int32),
        "split": RaggedColumn("sample", np.uint8),
        "names": RaggedColumn("unit", np.bytes_),
    },
    counts="n_atoms",
    unit="molecule",
    items="atoms",
    samples="conformers",
    units="molecules",
)
SPLIT_RULE = rule_of("by molecule", "the canonical SMILES")


def bounding_radii(table: RaggedTable) -> NDArray[np.float64]:
    """[samples] A: of the sphere about the origin that holds the conformer."""
    distances = UNIT * np.linalg.norm(table["pos"].astype(np.float64), axis=1)
    return np.maximum.reduceat(distances, table.first) if len(table.first) else np.zeros(0)


class ConformerBuilder:
    """Gathers conformers; those that ``grid`` cannot show at every rotation are left out and
    counted."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._table = TableBuilder(LAYOUT)
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
        self._table.add(
            name,
            np.array([len(z)]),
            split,
            pos=np.rint((pos - centre) / UNIT),
            channel=np.searchsorted(NUMBERS, z),
        )
        return True

    def finish(self, source: str) -> RaggedTable:
        """All that was kept; raises ``FailedError``, naming ``source``, if a split has no
        sample."""
        table = self._table.finish()
        empty = table.empty_splits()
        if empty:
            excuse = f" ({self.excuse()})" if self.left_out else ""
            raise FailedError(
                f"{source} gives no usable conformer for {' and '.join(empty)}{excuse}; check that "
                "it is the whole published set"
            )
        return table

    def excuse(self) -> str:
        """What was left out and why, for people."""
        return ", ".join(f"{count} {reason}" for reason, count in sorted(self.left_out.items()))


def write(
    table: RaggedTable,
    out: Path,
    grid: Grid,
    *,
    recipe: Mapping[str, Any],
    licences: Mapping[str, str],
    split_rule: str = SPLIT_RULE,
) -> Path:
    """Write ``out`` (.npz) and its cards, each atomically; returns ``out``. Raises ``FailedError``
    if it cannot be written."""
    counts = np.bincount(table["channel"], minlength=len(ELEMENTS))
    elements = dict(zip(ELEMENTS, counts.tolist(), strict=True))
    radii = [round(float(q), 3) for q in np.quantile(bounding_radii(table), [0.5, 0.9, 1.0])]
    box = f"{grid.box:g} A; smallest ball plus {MARGIN:g} A of margin fits it"
    facts = {"elements": elements, "bounding_radius_p50_p90_max": radii, "box": box}
    summary = f"""{len(table["channel"])} atoms, {{bytes}} bytes, SHA-256 `{{sha256}}`.
Atoms per element: {plain(elements)}.
Radius of the smallest ball p50/p90/max {"/".join(map(str, radii))} A; chosen for a box of {box}."""
    units = {
        "pos": "0.001 A, from the centre of the smallest ball",
        "channel": "element: " + " ".join(ELEMENTS),
    }
    return write_table(
        table,
        out,
        facts,
        summary,
        units=units,
        split_rule=split_rule,
        licences=licences,
        recipe=recipe,
    )


def read(path: Path) -> tuple[RaggedTable, dict[str, Any]]:
    """(table, card) of ``path``; raises ``FailedError`` if a file is missing, cut short, or of the
    wrong content."""
    return read_table(path, LAYOUT)
