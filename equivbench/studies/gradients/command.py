"""``equivbench analyze gradients``: gradients of both parts of the error along runs that kept
snapshots."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from equivbench.cli.options import Json, takes
from equivbench.cli.output import message, print_json, print_table
from equivbench.studies.gradients.record import GRADIENTS, GradientsRequest

if TYPE_CHECKING:
    from equivbench.studies.gradients.record import Gradients


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("gradients")(gradients)


@takes(GradientsRequest)
def gradients(request: GradientsRequest, json: Json = False) -> None:
    """Measure the gradients of the twirled error M and the equivariance error V along each RUN, and
    print their norms and the ratio of the norms.

    The norms are unbiased, because they are made of products of independent chunks of the samples.
    The correlations with the share of the equivariance error are given over all runs of the same
    kind, as they are and with each run's trend in time taken out (a quadratic in log step).
    """
    from equivbench.registry import TASKS
    from equivbench.report.figures import require_drawable
    from equivbench.studies.gradients.report import correlation_table, gradient_table
    from equivbench.studies.gradients.trends import pool

    if request.plot is not None:
        require_drawable(Path(request.plot))
    found: dict[tuple[str, ...], Gradients] = {}
    written: list[Path] = []
    for analysis in _analysed(request):
        # A run may be named twice, by its id and its record; it counts once.
        found[analysis.identity] = analysis
        if request.out is not None:
            # Each as soon as it is done, so that an interruption loses only the one under way.
            written += GRADIENTS.keep([analysis], Path(request.out))
        if not json:
            print_table(gradient_table(analysis, TASKS.get(analysis.task).board_unit))
            typer.echo()
    analyses = list(found.values())
    if json:
        print_json({"analyses": analyses, "pooled": pool(analyses)})
    else:
        for pooled in pool(analyses):
            print_table(correlation_table(pooled))
    if request.plot is not None:
        from equivbench.studies.gradients.report import plot_gradients

        written.append(plot_gradients(analyses, Path(request.plot)))
    for path in dict.fromkeys(written):
        message("written", str(path))


def _analysed(request: GradientsRequest) -> Iterator[Gradients]:
    from equivbench.studies.gradients.measuring import analyse_gradients

    for run in dict.fromkeys(request.runs):
        # A model may print as it is built or called; stdout is for the result.
        with contextlib.redirect_stdout(sys.stderr):
            analysis = analyse_gradients(run, request)
        yield analysis
