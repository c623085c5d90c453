"""``equivbench analyze baselines``: losses against the zero and linear predictors, and shares at
matched losses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("baselines")(baselines)


def baselines(
    results: Annotated[Path, typer.Argument(help="A results folder or a record file.")] = Path(
        "results"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """Each arm against the zero and the best linear predictor, and the arms' shares where their
    losses agree.

    A share changes as a model learns, so that it compares with the other arm's only at the same
    loss. "Not reached" is said where an arm did not come down to a loss; nothing is extrapolated.
    """
    from equivbench.cli.output import message, print_json, print_table
    from equivbench.errors import FailedError
    from equivbench.gap.matched import matched_shares
    from equivbench.records.submission import admitted
    from equivbench.registry import TASKS
    from equivbench.report.baselines import ends_table, levels_table

    found = matched_shares(admitted(results, invalid="warn"))
    if not found:
        raise FailedError(f"{results} has no finished run; `equivbench run` makes some")
    if as_json:
        print_json(found)
        return
    units = {name: entry.value.board_unit for name, entry in TASKS.entries().items()}
    for each in found:
        unit = units.get(each.setting.task)
        print_table(ends_table(each, each.setting.text + (f", loss in {unit}" if unit else "")))
        if each.levels:
            print_table(levels_table(each.levels))
        for note in each.notes:
            message("note", f"{each.setting.text}: {note}")
        typer.echo()
