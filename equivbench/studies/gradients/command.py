"""``equivbench analyze gradients``: gradients of both parts of the error along runs that kept
snapshots."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from equivbench.cli.options import Device

if TYPE_CHECKING:
    from equivbench.studies.gradients.record import Gradients


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("gradients")(gradients)


def gradients(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN", help="A record, run id or checkpoint of a run with --snapshots."
        ),
    ],
    weights: Annotated[str, typer.Option(help="ema (averaged) or model (raw).")] = "ema",
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    samples: Annotated[
        int | None,
        typer.Option(help="How many, spread over all groups (default: by the task's cost)."),
    ] = None,
    chunks: Annotated[
        int, typer.Option(help="Independent parts whose gradients are multiplied.")
    ] = 8,
    rotations: Annotated[int, typer.Option(help="Draws per sample.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed of samples, noise and rotations.")] = 0,
    device: Device = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Keep the analyses in this results folder.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw them into this file (.png, .pdf, .svg).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Norms of the gradients of the twirled error M and the equivariance error V along each RUN,
    and their ratio.

    The norms are unbiased: products of independent chunks of the samples. The correlations with the
    share are given as they are and with each run's trend in time taken out (a quadratic in log
    step), over all runs of the same kind.
    """
    from equivbench.cli.output import message, print_json
    from equivbench.studies.gradients.analysis import analyse_gradients
    from equivbench.studies.gradients.record import GRADIENTS
    from equivbench.studies.gradients.trends import pool

    if plot is not None:
        from equivbench.report.figures import require_drawable

        require_drawable(plot)
    found: dict[tuple[str, ...], Gradients] = {}
    kept = []
    for run in dict.fromkeys(runs):
        # A model may print as it is built or called; stdout is for the result.
        with contextlib.redirect_stdout(sys.stderr):
            analysis = analyse_gradients(
                run,
                weights=weights,
                split=split,
                samples=samples,
                chunks=chunks,
                rotations=rotations,
                seed=seed,
                device=device,
            )
        # A run may be named twice, by its id and its record; it counts once.
        found[analysis.identity] = analysis
        if out is not None:
            # As each is done, so that an interruption loses no more than the one under way.
            kept += GRADIENTS.keep([analysis], out)
        if not as_json:
            _print(analysis)
    analyses = list(found.values())
    if as_json:
        print_json({"analyses": analyses, "pooled": pool(analyses)})
    else:
        _print_correlations(analyses)
    if plot is not None:
        from equivbench.studies.gradients.figure import plot_gradients

        kept.append(plot_gradients(analyses, plot))
    for path in dict.fromkeys(kept):
        message("written", str(path))


def _print(analysis: Gradients) -> None:
    from equivbench.cli.output import message, print_table
    from equivbench.registry import TASKS
    from equivbench.report.text import printable
    from equivbench.studies.gradients.table import COLUMNS, gradient_rows, notes

    where = f"{analysis.task}/{analysis.pair} {analysis.arm}, {analysis.run_id}"
    unit = TASKS.get(analysis.task).board_unit
    how = f"{analysis.weights} weights, {analysis.samples} {analysis.split} samples in {analysis.chunks} chunks"
    typer.echo(
        printable(
            f"{where}: {how}, {analysis.rotations} rotations ({analysis.group}), loss in {unit}"
        )
    )
    print_table(COLUMNS, gradient_rows(analysis))
    for note in notes(analysis):
        message("note", note)
    typer.echo()


def _print_correlations(found: Sequence[Gradients]) -> None:
    from equivbench.cli.output import message, print_table
    from equivbench.studies.gradients.table import (
        CORRELATION_COLUMNS,
        correlation_notes,
        correlation_rows,
        kind,
    )
    from equivbench.studies.gradients.trends import pool

    pooled = pool(found)
    for each in pooled:
        rows = correlation_rows(each)
        if rows:
            typer.echo(kind(each))
            print_table(CORRELATION_COLUMNS, rows)
    for note in correlation_notes(pooled):
        message("note", note)
