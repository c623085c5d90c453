"""``equivbench tune``: equal trials for both arms of a pair on the validation split; the log is
kept."""

from __future__ import annotations

from dataclasses import asdict

import typer

from equivbench.cli.options import Json, takes
from equivbench.cli.output import message, print_json, print_table
from equivbench.counted import counted
from equivbench.errors import FailedError, InterruptedRunError
from equivbench.execution.tune_request import TuneRequest
from equivbench.execution.tuning import Study, recipe_lines
from equivbench.report.table import Column, Table


@takes(TuneRequest)
def tune(request: TuneRequest, json: Json = False) -> None:
    """Tune learning rate, batch size and width of both arms of PAIR with equal trials.

    Each arm is searched around its own best, both at equally many points, with the same budget and
    seeds. A rerun skips the trials that are in the log. A best point at the edge of what was tried,
    or beside a cliff (a neighbour twice as bad), is refused.

    What costs none of the budget is not searched: at a budget in samples the width, at one in steps
    the batch size too.
    """
    from equivbench.execution.plan import check_writable

    study = Study(request, lambda text: message("tune", text))
    check_writable(request.out)
    try:
        tuned = study.tune()
    except KeyboardInterrupt:
        raise InterruptedRunError(
            "interrupted; finished trials are in the log, the same command goes on"
        ) from None
    if tuned.busy:
        message(
            "warning",
            f"{counted(tuned.busy, 'trial')} ran on a busy machine (field busy of the log), as if "
            "with a smaller budget; tune again on a quiet machine with --fresh",
        )
    if json:
        print_json(asdict(tuned) | {"log": str(tuned.log)})
    else:
        columns = (
            Column("arm", key=True),
            Column("learning rate", "number"),
            Column("batch size"),
            Column("width factor", "number"),
            Column("validation loss", "number", digits=4),
            Column("points"),
            Column("given up for it", show="filled", wraps=True),
        )
        rows = [
            (arm, *each.setup, each.loss, each.points, each.given_up)
            for arm, each in tuned.choices.items()
        ]
        if rows:
            print_table(Table("", columns, rows, notes=[tuned.width]))
        typer.echo(f"log {tuned.log}, sha256 {tuned.sha256}")
        if rows:
            typer.echo(f"for the recipes of {request.pair}, preset {request.preset}:")
        for line in recipe_lines(tuned):
            typer.echo(f"  {line}")
    if tuned.refused:
        reasons = "; ".join(f"{arm}: {' and '.join(why)}" for arm, why in tuned.refused.items())
        raise FailedError(
            f"no choice for {' and '.join(tuned.refused)} after {counted(tuned.points, 'point')}; "
            f"{reasons}; the same command with more --extensions goes on"
        )
