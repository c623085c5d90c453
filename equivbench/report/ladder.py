"""Ladders as one table: what each entry changed, what it takes to the target loss, and how much
faster that is than the entry below."""

from __future__ import annotations

from collections.abc import Iterable

from equivbench.gap.intervals import Quantity
from equivbench.records.ladder import LEAST_SEEDS, SIGNIFICANT, LadderEntry, PlacedEntry, placed
from equivbench.report.formats import SHORT
from equivbench.report.table import Cell, Column, Table

COLUMNS = (
    Column("pair", key=True),
    Column("arm", key=True),
    Column("preset", key=True, show="differs"),
    Column("machine", key=True, show="differs"),
    Column("target", "number", key=True, digits=5),
    Column("commit", key=True),
    Column("kernels", key=True, show="differs"),
    Column("created", key=True, heading="measured"),
    Column("seconds", "seconds", heading="time to it"),
    Column("steps", "number"),
    Column("samples", "number"),
    Column("placing"),
    Column("speed_up", "number", heading="x below"),
    Column("p", "number", digits=2),
    Column("in_all", "number", heading="x first"),
    Column("seeds"),
    Column("change", wraps=True),
    Column("budget", show="data"),
    Column("against", show="data"),
    Column("against_kernels", show="data"),
    Column("reason", show="data"),
    Column("log", show="data"),
    Column("log_sha256", show="data"),
    Column("command", show="data"),
)
LEGEND = (
    "time to it: device seconds (training and data) until the annealed loss is down at the target, "
    "geometric mean over seeds with its 95% interval; steps and samples likewise",
    "x below: time of the entry below, run again beside this one on the same machine, over this "
    "one's; p: one-sided, paired by seed; x first: the product of the gains that count, so far",
    f"faster: p < {SIGNIFICANT:g} against the entry below, with {LEAST_SEEDS} seeds or more; not "
    "compared: the entry below could not be run, or was not to be; beside: compared with another "
    "commit than the entry below",
)


def ladder_table(entries: Iterable[LadderEntry], title: str = "") -> Table:
    """Make the table of ``entries``, those of one ladder below each other in order of time."""
    ladders = placed(entries)
    rows = [row for own in ladders for row in _rows(own)]
    notes = [note for own in ladders for note in _notes(own)]
    return Table(title, COLUMNS, rows, [*notes, *LEGEND])


def _notes(ladder: list[PlacedEntry]) -> Iterable[str]:
    """Why there is no p-value of an entry that is not the first."""
    for each in ladder:
        entry, reason = each.entry, each.entry.reasons.get("p")
        if reason is not None and each.placing != "first":
            commit = str(entry.git.commit)[:SHORT]
            yield f"{entry.task}/{entry.pair} {entry.arm} {commit}: no p, {reason}"


def _rows(ladder: list[PlacedEntry]) -> Iterable[list[Cell]]:
    in_all: float | None = 1.0
    for each in ladder:
        entry = each.entry
        if each.placing == "not compared":
            in_all = None
        elif each.placing == "faster" and in_all is not None:
            in_all *= entry.speed_up or 1.0
        yield [
            f"{entry.task}/{entry.pair}",
            entry.arm,
            entry.preset,
            entry.environment.machine_key,
            entry.target,
            str(entry.git.commit)[:SHORT],
            entry.kernels,
            entry.created,
            Quantity(entry.seconds, entry.seconds_low, entry.seconds_high, entry.censored),
            entry.steps,
            entry.samples,
            each.placing,
            Quantity(
                entry.speed_up,
                entry.speed_up_low,
                entry.speed_up_high,
                entry.speed_up_censored,
            ),
            entry.p,
            in_all if each.counts else None,
            len(entry.times),
            entry.change,
            entry.budget,
            entry.against,
            None if entry.against is None else entry.against_kernels,
            entry.reasons.get("p"),
            entry.log,
            entry.log_sha256,
            entry.command,
        ]
