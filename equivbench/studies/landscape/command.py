"""``equivbench analyze landscape``: curvature of both parts of the error around a run's weights,
and a slice through them."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from equivbench.cli.options import Device

if TYPE_CHECKING:
    from equivbench.studies.landscape.record import Landscape


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("landscape")(landscape)


def landscape(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's record, id, checkpoint or snapshot.")
    ],
    layers: Annotated[
        str, typer.Option(help="Parameters to vary, by name, as in a shell: '*head*'.")
    ] = "*",
    along: Annotated[
        str, typer.Option(help="total, twirled or equivariance: whose eigenvectors span the slice.")
    ] = "total",
    step: Annotated[
        int | None, typer.Option(help="Of a snapshot (run --snapshots); default: the end.")
    ] = None,
    points: Annotated[
        int | None,
        typer.Option(min=6, help="Along each axis of the slice (default: 11, or 9 by cost)."),
    ] = None,
    radius: Annotated[
        float | None, typer.Option(help="Of the slice (default: by curvature).")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="How many (default: by their cost).")
    ] = None,
    rotations: Annotated[
        int | None, typer.Option(min=2, help="Draws per sample (default: 4, or 2 by cost).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of samples, noise, rotations and probes.")] = 0,
    eigenvalues: Annotated[int, typer.Option(min=1, help="How many at each end.")] = 1,
    weights: Annotated[str, typer.Option(help="ema (averaged) or model (raw).")] = "ema",
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    precision: Annotated[
        str, typer.Option(help="float32, or float64: three times as slow.")
    ] = "float32",
    device: Device = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Keep the analysis in this results folder.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the slice into this file (.png, .pdf, .svg).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    no_repeat: Annotated[
        bool,
        typer.Option("--no-repeat", help="Measure on one draw only: what is noise stays unknown."),
    ] = False,
) -> None:
    """The landscape of the total, the twirled and the equivariance error around the weights of RUN.

    Everything is fixed: samples, noise, rotations, dropout off. The extreme eigenvalues of each
    Hessian come from Lanczos, its trace from random probes; the slice is measured again on other
    draws and, as published, with a draw of its own at each point.
    """
    from equivbench.cli.output import message, print_json
    from equivbench.studies.landscape.analysis import analyse_landscape
    from equivbench.studies.landscape.record import LANDSCAPES

    if plot is not None:
        from equivbench.report.figures import require_drawable

        require_drawable(plot)
    # A model may print as it is built or called; stdout is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        found = analyse_landscape(
            run,
            layers=layers,
            along=along,
            step=step,
            points=points,
            radius=radius,
            samples=samples,
            rotations=rotations,
            seed=seed,
            eigenvalues=eigenvalues,
            weights=weights,
            split=split,
            precision=precision,
            device=device,
            repeat=not no_repeat,
        )
    written = LANDSCAPES.keep([found], out) if out is not None else []
    if as_json:
        print_json(found)
    else:
        _print(found)
    if plot is not None:
        from equivbench.studies.landscape.figure import plot_landscape

        written.append(plot_landscape(found, plot))
    for path in written:
        message("written", str(path))


def _print(found: Landscape) -> None:
    from equivbench.cli.output import message, print_table
    from equivbench.registry import TASKS
    from equivbench.studies.landscape.table import (
        COLUMNS,
        landscape_notes,
        landscape_rows,
        landscape_title,
    )

    typer.echo(landscape_title(found, TASKS.get(found.task).board_unit))
    print_table(COLUMNS, landscape_rows(found))
    for note in landscape_notes(found):
        message("note", note)
