"""Pretrained networks as one table: what is declared and verified, the share, the loss, and what a
call and an average cost."""

from __future__ import annotations

from collections.abc import Sequence

from equivbench.gap.intervals import Quantity
from equivbench.records.pretrained import AVERAGED_OVER, PretrainedMeasurement, newest
from equivbench.report.table import Amount, Cell, Column, Missing, Table
from equivbench.report.words import FLOOR

VERIFIED = {True: "yes", False: "NO", None: "not decided"}
"""How it is written whether a declared symmetry was confirmed."""
COLUMNS = (
    Column("network", key=True),
    Column("data", key=True),
    Column("machine", key=True, show="differs"),
    Column("group", key=True, show="differs"),
    Column("declared"),
    Column("verified"),
    Column("share", "number", digits=2),
    FLOOR,
    Column("learning", "number", "share learning", digits=2, show="filled"),
    Column("grid", "number", "share grid", digits=2, show="filled"),
    Column("translation", "number", "share half-cell", digits=2, show="filled"),
    Column("loss", "number"),
    Column("explained", "percent"),
    Column("call", "seconds"),
    *(Column(f"mean of {count}", "number") for count in AVERAGED_OVER),
    Column("atoms", "number"),
    Column("samples"),
    Column("packages", show="data"),
    Column("source", show="data"),
    Column("command", show="data"),
)
LEGEND = (
    "verified: whether the declared symmetry holds, as the verdicts below say",
    "share: part of the loss that is a symmetry error (the loss being the squared prediction where "
    "nothing is there to compare with), with its 95% interval over samples; floor: what rounding "
    "alone would show",
    "learning, grid, half-cell: the share under the 24 rotations of the cube alone, the rest, and "
    "under translations by half a cell",
    "loss: mean squared error of forces in (eV/A)^2 against GFN2-xTB, of affinities in pK^2 "
    "against the measured one; call: one sample on the threads of the machine's name; mean of n: "
    "the loss of the mean over n rotations, which takes n calls",
)


def pretrained_table(lines: Sequence[PretrainedMeasurement], title: str = "") -> Table:
    """Make the table of ``lines``, a row for each network, with the verdicts below."""
    shown = newest(list(lines))
    notes = [f"{line.network}: {line.verdict}" for line in shown]
    return Table(title, COLUMNS, [_row(line) for line in shown], [*notes, *LEGEND])


def _row(line: PretrainedMeasurement) -> list[Cell]:
    declared = line.symmetry != "none"
    missing = Missing("no reference")
    errors = [line.averaged[str(count)].error for count in AVERAGED_OVER]
    grid = line.grid
    return [
        line.network,
        line.data,
        line.environment.machine_key,
        line.group,
        line.symmetry,
        VERIFIED[line.symmetry_verified] if declared else "-",
        Quantity(line.share, line.share_low, line.share_high),
        line.floor,
        *(
            (None, None, None)
            if grid is None
            else (each / line.total for each in (grid.learning, grid.grid, grid.translation))
        ),
        missing if line.reference is None else Amount(line.total, line.unit),
        line.explained,
        line.call_seconds,
        *(missing if line.reference is None else error for error in errors),
        line.atoms,
        line.samples,
        tuple(f"{name} {version}" for name, version in line.packages.items()),
        line.source,
        line.command,
    ]
