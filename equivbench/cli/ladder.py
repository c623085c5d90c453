"""``equivbench ladder``: how long a commit takes to a pair's target loss, beside the entry
below."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from equivbench.cli.ending import ending_by_signal
from equivbench.cli.options import Json, takes
from equivbench.cli.output import message, print_json, print_table
from equivbench.gate.ladder_request import LadderRequest

if TYPE_CHECKING:
    from equivbench.gate.ladder_plan import EntryPlan
    from equivbench.records.ladder import LadderEntry
    from equivbench.report.table import Table


@takes(LadderRequest)
def ladder(request: LadderRequest, json: Json = False) -> None:
    """Measure how long a commit takes to the target loss of PAIR, and append it to the ladder.

    Each arm has a loss that never changes. The runs of the commit alternate with runs of the entry
    below, seed by seed, on this machine; with p < 0.01 the new entry counts. Both are checked out
    into temporary worktrees, so call it inside a checkout of equivbench.
    """
    from equivbench.cli.progress import Quiet
    from equivbench.execution.plan import check_writable
    from equivbench.gap.ladder_file import keep_entry
    from equivbench.gate.ladder import measure_entry
    from equivbench.gate.ladder_plan import plans_of

    plans = plans_of(request)
    if request.dry_run:
        print_table(_plan_table(plans), json=json)
        return
    check_writable(request.out)
    entries: list[LadderEntry] = []
    for plan in plans:
        title = f"{plan.pair.key} {plan.target.arm}"
        with ending_by_signal():
            entry, log = measure_entry(plan, partial(message, title), Quiet())
        file = keep_entry(entry, log, Path(request.out))
        message("note", f"{title}: appended to {file}")
        entries.append(entry)
    if json:
        print_json(entries)
        return
    from equivbench.report.ladder import ladder_table

    print_table(ladder_table(_kept(entries, Path(request.out))))


def _kept(entries: list[LadderEntry], results: Path) -> list[LadderEntry]:
    """All entries of the ladders that ``entries`` went onto."""
    from equivbench.gap.ladder_file import LADDER_FILE
    from equivbench.records.ladder import LADDER_NAME

    (machine,) = {entry.environment.machine_key for entry in entries}
    ladders = {entry.ladder for entry in entries}
    lines = LADDER_FILE.read(results / machine / LADDER_NAME)
    return [line for line in lines if line.ladder in ladders]


def _plan_table(plans: list[EntryPlan]) -> Table:
    from equivbench.report.table import Column, Missing, Table

    columns = (
        Column("pair", key=True),
        Column("arm", key=True),
        Column("target", "number", digits=5),
        Column("commit"),
        Column("against"),
        Column("budget"),
        Column("runs"),
        Column("least", "seconds", heading="takes at least"),
        Column("change", wraps=True),
    )
    rows = [
        (
            plan.pair.key,
            plan.target.arm,
            plan.target.loss,
            plan.measured.text,
            Missing("none") if plan.against is None else plan.against.text,
            plan.budget.text,
            plan.runs,
            plan.runs * plan.budget.limit,
            plan.change,
        )
        for plan in plans
    ]
    notes = [
        f"{plan.pair.key} {plan.target.arm}: not compared, {plan.not_compared}"
        for plan in plans
        if plan.not_compared is not None
    ]
    return Table("", columns, rows, notes)
