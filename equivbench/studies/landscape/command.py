"""``equivbench analyze landscape``: curvature of both parts of the error around a run's weights,
and a slice through them."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import typer

from equivbench.cli.options import Json, takes
from equivbench.cli.output import message, print_json, print_table
from equivbench.studies.landscape.record import LANDSCAPES, LandscapeRequest


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("landscape")(landscape)


@takes(LandscapeRequest)
def landscape(request: LandscapeRequest, json: Json = False) -> None:
    """Measure the landscape of the total, the twirled and the equivariance error around the weights
    of RUN.

    Everything is fixed: samples, noise and rotations, and dropout is off. The extreme eigenvalues
    of each Hessian come from Lanczos iterations, its trace from random probes. The slice is
    measured again on other draws and, as published, with a draw of its own at each point.
    """
    from equivbench.registry import TASKS
    from equivbench.report.figures import require_drawable
    from equivbench.studies.landscape.analysis import analyse_landscape
    from equivbench.studies.landscape.report import landscape_table, plot_landscape

    plot = None if request.plot is None else Path(request.plot)
    if plot is not None:
        require_drawable(plot)
    # A model may print as it is built or called; stdout is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        found = analyse_landscape(request)
    written = [] if request.out is None else LANDSCAPES.keep([found], Path(request.out))
    if json:
        print_json(found)
    else:
        print_table(landscape_table(found, TASKS.get(found.task).board_unit))
    if plot is not None:
        written.append(plot_landscape(found, plot))
    for path in written:
        message("written", str(path))
