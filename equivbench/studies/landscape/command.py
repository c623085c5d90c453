"""``equivbench analyze landscape``: curvature of both parts of the error around a run's weights,
and a slice through them; the table of its properties, and the figure of the slices."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from equivbench.cli.options import Json, takes
from equivbench.cli.output import message, print_json, print_table
from equivbench.counted import counted
from equivbench.report.table import Cell, Column, Table
from equivbench.report.text import loss_in, number_text
from equivbench.studies.landscape.record import LANDSCAPES, Curvature, Landscape, LandscapeRequest
from equivbench.studies.record import ERROR_PARTS, Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PROPERTIES = {
    "value": "value",
    "largest": "largest eigenvalues",
    "largest_again": "their vectors on another draw",
    "smallest": "smallest eigenvalues",
    "smallest_again": "their vectors on another draw ",
    "residual": "residual / largest",
    "trace": "trace",
    "effective_condition": "effective condition",
    "in_plane": "curvatures in the slice",
    "in_plane_condition": "condition in the slice",
    "quadratic_r2": "quadratic fit R2",
    "fresh_r2": "quadratic fit R2, drawn anew at every point",
    "roughness": "roughness of what it leaves (1: noise)",
    "repeated": "correlation with another draw",
}
"""Fields of :class:`equivbench.studies.landscape.record.Curvature` in the order of the table."""


@takes(LandscapeRequest)
def landscape(request: LandscapeRequest, json: Json = False) -> None:
    """Measure the landscape of the total, the twirled and the equivariance error around the weights
    of RUN.

    Everything is fixed: samples, noise and rotations, and dropout is off. The extreme eigenvalues
    of each Hessian come from Lanczos iterations, its trace from random probes. The slice is
    measured again on other draws and, as published, with a draw of its own at each point.
    """
    from equivbench.registry import TASKS
    from equivbench.report.figures import require_drawable, save_figure
    from equivbench.studies.landscape.analysis import analyse_landscape

    if request.plot is not None:
        require_drawable(Path(request.plot))
    # A model may print as it is built or called; stdout is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        found = analyse_landscape(request)
    written = [] if request.out is None else LANDSCAPES.keep([found], Path(request.out))
    if json:
        print_json(found)
    else:
        print_table(landscape_table(found, TASKS.get(found.task).board_unit))
    if request.plot is not None:
        written.append(save_figure(draw_landscape(found), Path(request.plot)))
    for path in written:
        message("written", str(path))


def landscape_table(found: Landscape, unit: str) -> Table:
    """The properties of every part; ``unit`` is that of the loss. The notes say what is missing."""
    which = "all parameters" if found.layers == "*" else f"parameters {found.layers}"
    first, second = (number_text(axis[-1]) for axis in found.axes)
    title = (
        f"{found.task}/{found.pair} {found.arm}, {found.run_id}, step {found.step}: "
        f"{found.weights} weights, {which} ({found.parameters}), "
        f"{counted(found.samples, f'{found.split} sample')}, "
        f"{counted(found.rotations, 'rotation')} ({found.group}), {found.precision}; "
        f"{loss_in(unit)}; slice along the {found.along} error's extreme eigenvectors, radii "
        f"{first} and {second}"
    )
    columns = [Column("property", heading=" ", key=True)]
    columns += [Column(part, kind="number") for part in ERROR_PARTS]
    rows = [
        [label, *(_cell(found.parts[part], name) for part in ERROR_PARTS)]
        for name, label in _PROPERTIES.items()
    ]
    return Table(title, columns, rows, list(_missing(found)))


def _cell(part: Curvature, name: str) -> Cell:
    value = getattr(part, name)
    if isinstance(value, list):
        return tuple(number_text(each) for each in value) or None
    return value.quantity if isinstance(value, Estimate) else value


def _missing(found: Landscape) -> Iterator[str]:
    """What is missing and why, once for each reason."""
    places: dict[str, list[str]] = {}
    for path, reason in found.reasons.items():
        name = path.removeprefix("parts.").replace(".", ": ", 1).replace("_", " ")
        places.setdefault(reason, []).append(name)
    for reason, names in places.items():
        yield f"{', '.join(names)}: {reason}"


def draw_landscape(found: Landscape) -> Figure:
    """The figure: each part relative to what it is at the weights, which the cross marks;
    ``FailedError`` without matplotlib."""
    from matplotlib.ticker import MaxNLocator

    from equivbench.report.figures import empty_figure

    figure = empty_figure(12.0, 7.4)
    grid = figure.add_gridspec(2, len(ERROR_PARTS), height_ratios=(1.25, 1.0))
    first, second = (np.asarray(axis) for axis in found.axes)
    x, y = np.meshgrid(first, second, indexing="ij")
    for column, part in enumerate(ERROR_PARTS):
        shape = found.parts[part]
        values = np.asarray(found.grids[part]) / (abs(shape.value) or 1.0)
        surface: Any = figure.add_subplot(grid[0, column], projection="3d")
        surface.plot_surface(
            x, y, values, cmap="viridis", linewidth=0.2, edgecolor="#00000040", rstride=1, cstride=1
        )
        surface.tick_params(labelsize=6, pad=0)
        surface.xaxis.set_major_locator(MaxNLocator(3))
        surface.set_xlabel("largest", fontsize=7, labelpad=-4)
        surface.set_ylabel("smallest", fontsize=7, labelpad=-4)
        said = (
            "flat" if shape.quadratic_r2 is None else f"quadratic fit R2 {shape.quadratic_r2:.3f}"
        )
        fresh = (
            "" if shape.fresh_r2 is None else f"\ndrawn anew at every point {shape.fresh_r2:.2f}"
        )
        surface.set_title(
            f"{part} error, {shape.value:.3g} at the weights\n{said}{fresh}", fontsize=9
        )
        contours = figure.add_subplot(grid[1, column])
        if np.ptp(values) > 0:
            drawn = contours.contourf(first, second, values.T, levels=16, cmap="viridis")
            figure.colorbar(drawn, ax=contours).ax.tick_params(labelsize=7)
        contours.plot(0.0, 0.0, "+", color="white", markersize=10, markeredgewidth=2)
        contours.set(xlabel="along the largest eigenvalue's vector", ylabel="along the smallest's")
        contours.tick_params(labelsize=7)
        contours.xaxis.set_major_locator(MaxNLocator(5))
    title = (
        f"{found.task}/{found.pair} {found.arm}, seed {found.seed}, step {found.step}: slice "
        f"along the {found.along} error"
    )
    figure.suptitle(title, fontsize="medium", parse_math=False)
    return figure
