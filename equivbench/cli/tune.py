"""``equivbench tune``: equal trials for both arms of a pair on the validation split; the log is
kept."""

from __future__ import annotations

from typing import Annotated

import typer

from equivbench.errors import InterruptedRunError


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("tune")(tune)


def tune(
    pair: Annotated[str, typer.Argument(metavar="PAIR", help="task/pair, e.g. forcefield/vector.")],
    trials: Annotated[
        int, typer.Option(help="Trials an arm: at least 4 learning rates times 1 to 3 batch sizes.")
    ] = 12,
    preset: Annotated[str, typer.Option(help="dev, small or paper.")] = "small",
    budget: Annotated[
        str | None, typer.Option(help="Per trial (default: a third of the preset's).")
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of every trial; not one that results are reported for.")
    ] = 1000,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(help="CPU threads of a trial (default: the physical cores; 1 with --jobs)."),
    ] = None,
    jobs: Annotated[
        int, typer.Option(help="Trials at once; above 1 the budget must be in steps or samples.")
    ] = 1,
    extensions: Annotated[
        int,
        typer.Option(help="Most steps by which the grid may grow until no optimum is at its edge."),
    ] = 6,
    out: Annotated[
        str, typer.Option(help="Results folder; the log goes to its folder tuning.")
    ] = "results",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Discard the log of an earlier tuning.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Tune learning rate and batch size of both arms of PAIR with equal trials.

    Both arms get the same grid, budget and seed. A rerun skips the trials that are in the log.
    """
    from equivbench.cli.output import message, print_json, print_table
    from equivbench.execution.local import check_writable
    from equivbench.execution.tuning import Study, TuneRequest, recipe_lines

    request = TuneRequest(
        pair, trials, preset, budget, seed, device, threads, jobs, extensions, out, fresh
    )
    study = Study(request, lambda text: message("tune", text))
    check_writable(out)
    try:
        tuned = study.tune()
    except KeyboardInterrupt:
        raise InterruptedRunError(
            "interrupted; finished trials are in the log, the same command goes on"
        ) from None
    for arm, sides in tuned.at_edge.items():
        if sides:
            message(
                "warning",
                f"the best trial of {arm} is still at the {' and '.join(sides)} edge; raise --extensions",
            )
    lines = recipe_lines(tuned)
    if json:
        grid = {"learning_rates": tuned.grid.rates, "batch_sizes": tuned.grid.batches}
        print_json(
            {
                "grid": grid,
                "best": tuned.best,
                "at_edge": tuned.at_edge,
                "log": str(tuned.log),
                "sha256": tuned.sha256,
            }
        )
        return
    rows = [
        [
            arm,
            f"{trial.learning_rate:g}",
            str(trial.batch_size),
            f"{trial.total:.4g}",
            str(len(tuned.grid.points)),
        ]
        for arm, trial in tuned.best.items()
        if trial is not None and trial.total is not None
    ]
    print_table(["arm", "learning rate", "batch size", "validation total", "trials"], rows)
    typer.echo(
        f"log {tuned.log}, sha256 {tuned.sha256}; for the recipes of {pair}, preset {preset}:"
    )
    for line in lines:
        typer.echo(f"  {line}")
