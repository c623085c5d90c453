"""Run records as a table, a row each, without aggregation: for notebooks and data frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from equivbench.budget import Budget
from equivbench.records.schema import RunRecord, Test
from equivbench.registry import board_units
from equivbench.report.board import whole_rate
from equivbench.report.gaps import variant_text
from equivbench.report.table import Cell, Column, Table
from equivbench.report.words import (
    COMPILE,
    EXPLAINED,
    LOSS,
    SHARE,
    SHARE_EMA,
    SHARE_RAW,
    SPEED,
    with_legend,
)

_KEYS = (
    Column("pair", key=True),
    Column("arm", key=True),
    Column("seed", key=True),
    Column("preset", key=True, show="differs"),
    Column("budget", key=True, show="differs"),
    Column("variant", key=True, show="differs"),
    Column("kernels", key=True, show="needed"),
    Column("machine", key=True, show="differs"),
    Column("run_id", key=True, show="needed"),
    Column("created", key=True, show="needed"),
    Column("status", show="differs"),
)
_FIGURES = (
    *(EXPLAINED, SHARE, SHARE_RAW, SHARE_EMA),
    Column("floor", "number", show="data"),
    Column("twirled", "number", show="data"),
    Column("equivariance", "number", show="data"),
    Column("over_best_untrained", "number", show="data"),
    Column("objective", "number", show="data"),
    *(SPEED, COMPILE),
    Column("train_seconds", "seconds", show="data"),
    Column("steps", show="data"),
    Column("samples", show="data"),
    Column("epochs", "number", show="data"),
    Column("parameters", show="data"),
    Column("model", show="data"),
    Column("symmetry", show="data"),
    Column("symmetry_verified", show="data"),
    Column("dataset", show="data"),
    Column("commit", show="data"),
    Column("contest", show="data"),
)


def record_table(records: Sequence[RunRecord]) -> Table:
    """Make the table of ``records`` in their order. Losses and shares are those of the annealed
    weights at the end of the budget, unless the column says raw or EMA."""
    units = {board_units().get(record.task, "") for record in records}
    loss = replace(LOSS, unit=units.pop() if len(units) == 1 else "")
    rows = [[*_keys(record), *_figures(record)] for record in records]
    return with_legend(Table("", (*_KEYS, loss, *_FIGURES), rows))


def one_record_table(record: RunRecord) -> Table:
    """Make the table of one record, which has one row."""
    return record_table([record])


def _keys(record: RunRecord) -> list[Cell]:
    return [
        f"{record.task}/{record.pair}",
        record.arm,
        record.seed,
        record.preset,
        Budget(record.budget.kind, record.budget.limit).text,
        variant_text(record.variant),
        record.model.kernels,
        record.environment.machine_key,
        record.run_id,
        record.created,
        record.status,
    ]


def _figures(record: RunRecord) -> list[Cell]:
    """The loss and the columns of ``_FIGURES``."""

    def final(name: str, test: Test | None = record.final) -> Cell:
        return None if test is None else getattr(test, name)

    return [
        final("total"),
        final("explained"),
        final("share"),
        final("share", record.final_raw),
        final("share", record.final_ema),
        *map(final, ("floor", "twirled", "equivariance", "over_best_untrained", "objective")),
        whole_rate(record),
        record.clock.compile,
        record.clock.train + record.clock.data,
        record.steps,
        record.samples,
        record.epochs,
        record.model.parameters,
        record.model.name,
        record.model.symmetry,
        record.model.symmetry_verified,
        record.dataset.name,
        record.git.commit,
        record.contest,
    ]
