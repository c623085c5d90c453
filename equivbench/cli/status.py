"""``equivbench status``: what of a plan is waiting, running, done or failed, whichever executor
runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from equivbench.cli.options import Json, ResultsArgument, ResultsOption, results_place
from equivbench.cli.output import print_json, print_table
from equivbench.report.table import Column, Table

if TYPE_CHECKING:
    from equivbench.execution.standing import UnitStanding


def status(
    results: ResultsArgument = None,
    named: ResultsOption = None,
    json: Json = False,
) -> None:
    """What of the plan in RESULTS is waiting, running (where, and how far), done or failed.

    It is read from files alone: whatever runs the plan, and on whichever machine.
    """
    from equivbench.execution.standing import STANDINGS, standings

    found = standings(results_place(results, named))
    if json:
        print_json(found)
        return
    columns = (
        Column("pair", key=True),
        Column("seed", key=True),
        Column("options", key=True, show="filled"),
        Column("preset", key=True),
        Column("budget", key=True),
        Column("unit", key=True, show="needed"),
        Column("state"),
        Column("progress", show="filled"),
        Column("where", show="filled"),
        Column("attempts"),
        Column("note", show="filled", wraps=True),
    )
    counts = {state: sum(each.state == state for each in found) for state in STANDINGS}
    said = ", ".join(f"{count} {state}" for state, count in counts.items())
    print_table(Table("", columns, [_row(each) for each in found], notes=[said]))


def _row(each: UnitStanding) -> tuple[str | int | None, ...]:
    options = ", ".join(f"{name} {value}" for name, value in each.labels.items())
    parts = [
        f"{arm} {min(1.0, done.spent / done.limit):.0%}"
        for arm, done in each.progress.items()
        if done.limit > 0
    ]
    if each.doing not in (None, "training"):
        parts.append(f"({each.doing})")
    return (
        *(each.pair, each.seed, options, each.preset, each.budget, each.unit, each.state),
        *(" ".join(parts), each.where or "", each.attempts, each.note or ""),
    )
