"""``equivbench analyze gradients``: gradients of both parts of the error along runs that kept
snapshots; a table of each run, one of how they go with the share, and a figure."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from equivbench.cli.options import Json, takes
from equivbench.cli.output import message, print_json, print_table
from equivbench.counted import counted
from equivbench.errors import FailedError
from equivbench.report.table import Column, Table
from equivbench.studies.gradients.record import (
    GRADIENTS,
    GradientPoint,
    Gradients,
    GradientsRequest,
)
from equivbench.studies.record import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from equivbench.studies.gradients.statistics import Pooled

_QUANTITIES = {"ratio": "gradient ratio", "deviation": "deviation of parameters"}
_LEGEND = (
    "M: twirled error, V: equivariance error, share: V / (M + V), deviation: relative squared "
    "distance of the symmetry-breaking parameters from symmetric ones"
)
_LINES = ("-", "--", ":", "-.")
"""Styles of the runs, where colour stands for what is measured."""


@takes(GradientsRequest)
def gradients(request: GradientsRequest, json: Json = False) -> None:
    """Measure the gradients of the twirled error M and the equivariance error V along each RUN, and
    print their norms and the ratio of the norms.

    The norms are unbiased, because they are made of products of independent chunks of the samples.
    The correlations with the share of the equivariance error are given over all runs of the same
    kind, as they are and with each run's trend in time taken out (a quadratic in log step).
    """
    from equivbench.registry import TASKS
    from equivbench.report.figures import require_drawable, save_figure
    from equivbench.studies.gradients.measuring import analyse_gradients
    from equivbench.studies.gradients.statistics import pool

    found: dict[tuple[str, ...], Gradients] = {}
    written: list[Path] = []
    if request.plot is not None:
        require_drawable(Path(request.plot))
    for run in dict.fromkeys(request.runs):
        # A model may print as it is built or called; stdout is for the result.
        with contextlib.redirect_stdout(sys.stderr):
            analysis = analyse_gradients(run, request)
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
        written.append(save_figure(draw_gradients(analyses), Path(request.plot)))
    for path in dict.fromkeys(written):
        message("written", str(path))


def gradient_table(analysis: Gradients, unit: str) -> Table:
    """A row for each snapshot; ``unit`` is that of the loss. The notes say what is missing."""
    where = f"{analysis.task}/{analysis.pair} {analysis.arm}, {analysis.run_id}"
    samples = counted(analysis.samples, f"{analysis.split} sample")
    samples += f" in {counted(analysis.chunks, 'chunk')}"
    how = f"{analysis.weights} weights, {samples}, {counted(analysis.rotations, 'rotation')}"
    columns = (
        Column("step", key=True),
        Column("budget", kind="number", unit="s"),
        Column("loss", kind="number", unit=unit),
        Column("share", kind="percent"),
        Column("twirled_norm", kind="number", heading="|grad M|", interval=False),
        Column("equivariance_norm", kind="number", heading="|grad V|", interval=False),
        Column("ratio", kind="number", heading="|grad V| / |grad M|"),
        Column("deviation", kind="number"),
        Column("relative_deviation", kind="number", heading="deviation / share"),
    )
    rows = [
        (
            point.step,
            point.train_seconds,
            point.total,
            point.share,
            point.twirled_norm.quantity,
            point.equivariance_norm.quantity,
            point.ratio.quantity,
            point.deviation,
            point.deviation / point.share if point.deviation is not None and point.share else None,
        )
        for point in analysis.points
    ]
    return Table(
        f"{where}: {how} ({analysis.group})", columns, rows, [*_missing(analysis), _LEGEND]
    )


def correlation_table(pooled: Pooled) -> Table:
    """How the quantities of the runs of one kind go with the share; one that no run has is left
    out. The notes say why intervals are missing."""
    title = kind(pooled)
    rows, notes = [], []
    for name, label in _QUANTITIES.items():
        raw, detrended = pooled.correlations[name], pooled.correlations[f"{name} detrended"]
        # Where no run has the quantity, the notes of its points say so already.
        if raw.quantity.value is None:
            continue
        rows.append((label, raw.quantity, detrended.quantity, pooled.runs))
        for what, found in ((name, raw), (f"{name} detrended", detrended)):
            if found.reason is not None:
                notes.append(f"{title}, {what}: {found.reason}")
    columns = (
        Column("quantity", heading="log share with log", key=True),
        Column("correlation", kind="number", digits=2),
        Column("detrended", kind="number", digits=2, heading="with the trend taken out"),
        Column("runs"),
    )
    return Table(title, columns, rows, notes)


def kind(pooled: Pooled) -> str:
    """Which runs were pooled, in words."""
    options = [f"{name} {value}" for name, value in sorted(pooled.variant.items())]
    where = f"{pooled.task}/{pooled.pair} {pooled.arm}"
    return ", ".join([where, pooled.preset, *options, pooled.machine_key])


def _missing(analysis: Gradients) -> Iterator[str]:
    """What the points lack, a line for each reason: ``ratio at 2 of 12 points: ...``."""
    counts: dict[tuple[str, str], int] = {}
    for path, reason in analysis.reasons.items():
        if path.startswith("points."):
            name = path.split(".", 2)[2]
            counts[name, reason] = counts.get((name, reason), 0) + 1
    for (name, reason), count in counts.items():
        yield f"{name.replace('_', ' ')} at {count} of {len(analysis.points)} points: {reason}"


def draw_gradients(analyses: Sequence[Gradients]) -> Figure:
    """The figure: a line style a run. Bars are 95% intervals; a point without one is a dot, one
    without a value is not drawn."""
    from equivbench.report.figures import OTHER_COLOURS, empty_figure

    if not any(analysis.points for analysis in analyses):
        raise FailedError("no analysis has a point to draw; analyse a run with snapshots first")
    figure = empty_figure(10.0, 4.5)
    norms, ratios = figure.subplots(1, 2)
    shown = (
        (norms, "twirled_norm", "|grad M| (twirled error)"),
        (norms, "equivariance_norm", "|grad V| (equivariance error)"),
        (ratios, "ratio", "|grad V| / |grad M|"),
        (ratios, "share", "share of the loss"),
        (ratios, "deviation", "deviation of parameters"),
    )
    runs = []
    for index, analysis in enumerate(analyses):
        style = _LINES[index % len(_LINES)]
        runs.append(f"{style} {analysis.task}/{analysis.pair} {analysis.arm} seed {analysis.seed}")
        for (axes, name, label), colour in zip(shown, OTHER_COLOURS, strict=False):
            how = {"color": colour, "linestyle": style, "label": label if index == 0 else None}
            _line(axes, analysis.points, name, **how)
    for axes in (norms, ratios):
        axes.set(xscale="log", yscale="log", xlabel="step")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines or axes.containers:
            axes.legend(frameon=False, fontsize="small")
    norms.set_ylabel("gradient norm [board metric / parameter]")
    figure.suptitle(", ".join(runs), fontsize="small", parse_math=False)
    return figure


def _line(axes: Axes, points: Sequence[GradientPoint], name: str, **how: Any) -> None:
    """The positive values with their intervals: the axis is logarithmic."""
    shown = []
    for point in points:
        value = getattr(point, name)
        each = value if isinstance(value, Estimate) else Estimate(value=value)
        if each.value is not None and each.value > 0:
            # An end that is open has no bar: one of no length would look like certainty.
            low = math.nan if each.low is None else each.value - each.low
            high = math.nan if each.high is None else each.high - each.value
            shown.append((point.step, each.value, low, high))
    if shown:
        steps, values, lows, highs = zip(*shown, strict=True)
        axes.errorbar(steps, values, yerr=[lows, highs], marker="o", markersize=3, capsize=2, **how)
