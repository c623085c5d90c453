"""The tables that ``run`` ends with: each arm's test error, symmetry error and speed, a table a
pair."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from equivbench.records.disturbed import disturbance
from equivbench.records.schema import RunRecord
from equivbench.report.gaps import seeds_text, variant_text
from equivbench.report.table import Cell, Column, Table
from equivbench.request import Budget

COLUMNS = (
    Column("arm", key=True),
    Column("preset", key=True, show="differs"),
    Column("budget", key=True, show="differs"),
    Column("variant", key=True, show="differs"),
    Column("kernels", key=True, show="needed"),
    Column("machine", key=True, show="differs"),
    Column("data", key=True, show="needed"),
    Column("model", key=True, show="needed"),
    Column("rules", key=True, show="differs"),
    Column("seeds"),
    Column("loss", "number", better="lower"),
    Column("explained", "percent", better="higher"),
    Column("share", "number", better="lower", digits=2),
    Column("floor", "number", digits=1),
    Column("samples/s", "number", better="higher"),
    Column("steps", "number"),
    Column("compile", "seconds"),
    Column("remarks", show="filled"),
)
"""Narrow enough for 80 columns where the rows are the two arms of one pair."""
KEYS = sum(column.key for column in COLUMNS)


def summary_tables(records: Sequence[RunRecord]) -> list[Table]:
    """Make a table for each pair of ``records``, rows in their order: means over finished seeds.

    A row of an arm whose declared symmetry failed its measurement, or with diverged or unfinished
    seeds, says so.
    """
    arms: dict[str, dict[tuple[Cell, ...], list[RunRecord]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for record in records:
        arms[f"{record.task}/{record.pair}"][_key(record)].append(record)
    return [
        Table(pair, COLUMNS, [[*key, *_figures(runs)] for key, runs in rows.items()])
        for pair, rows in arms.items()
    ]


def _key(record: RunRecord) -> tuple[Cell, ...]:
    """What only runs share that are averaged: the cells of the columns that are keys."""
    budget = record.budget
    return (
        record.arm if budget.extends is None else f"{record.arm}, extended",
        record.preset,
        Budget(budget.kind, budget.limit).text,
        variant_text(record.variant),
        record.model.kernels,
        record.environment.machine_key,
        f"{record.dataset.name} {record.dataset.sha256[:12]}",
        record.model.name,
        record.rules_version,
    )


def _figures(runs: Sequence[RunRecord]) -> list[Cell]:
    """The other cells of a row."""
    done = [run for run in runs if run.status == "completed" and run.final is not None]
    finals = [run.final for run in done if run.final is not None]
    return [
        seeds_text(len(done), len(runs)),
        _mean([final.total for final in finals]),
        _mean([final.explained for final in finals]),
        _mean([final.share for final in finals]),
        _mean([final.floor for final in finals]),
        _mean([run.throughput.samples_per_second for run in done]),
        _mean([float(run.steps) for run in done]),
        _mean([run.clock.compile for run in done]),
        _remarks(runs),
    ]


def _remarks(runs: Sequence[RunRecord]) -> str:
    """What is wrong with a row."""
    remarks = []
    if any(run.model.symmetry_verified is False for run in runs):
        remarks.append(f"declared {runs[0].model.symmetry} symmetry NOT confirmed")
    remarks += [f"seed {run.seed}: {found}" for run in runs if (found := disturbance(run))]
    remarks += [f"seed {run.seed} {run.status}" for run in runs if run.status != "completed"]
    return "; ".join(remarks)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
