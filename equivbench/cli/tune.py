"""``equivbench tune``: equal trials for both arms of a pair on the validation split; the log is
kept."""

from __future__ import annotations

import typer

from equivbench.cli.options import Json, takes
from equivbench.cli.output import message, print_json, print_table
from equivbench.errors import InterruptedRunError
from equivbench.execution.tuning import Study, TuneRequest, recipe_lines
from equivbench.report.table import Column, Table


@takes(TuneRequest)
def tune(request: TuneRequest, json: Json = False) -> None:
    """Tune learning rate and batch size of both arms of PAIR with equal trials.

    Both arms get the same grid, budget and seed. A rerun skips the trials that are in the log.
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
    for arm, edges in tuned.at_edge.items():
        if edges:
            message(
                "warning",
                f"the best trial of {arm} is still at the {' and '.join(edges)} edge; "
                "raise --extensions",
            )
    if json:
        grid = {"learning_rates": tuned.grid.rates, "batch_sizes": tuned.grid.batches}
        found = {"best": tuned.best, "at_edge": tuned.at_edge, "log": str(tuned.log)}
        print_json({"grid": grid, **found, "sha256": tuned.sha256})
        return
    columns = (
        Column("arm", key=True),
        Column("learning rate", "number"),
        Column("batch size"),
        Column("validation total", "number", digits=4),
        Column("trials"),
    )
    rows = [
        (arm, trial.learning_rate, trial.batch_size, trial.total, len(tuned.grid.points))
        for arm, trial in tuned.best.items()
        if trial is not None and trial.total is not None
    ]
    print_table(Table("", columns, rows))
    typer.echo(
        f"log {tuned.log}, sha256 {tuned.sha256}; "
        f"for the recipes of {request.pair}, preset {request.preset}:"
    )
    for line in recipe_lines(tuned):
        typer.echo(f"  {line}")
