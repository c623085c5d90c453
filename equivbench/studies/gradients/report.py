"""What a reader sees of gradients along a run: a table of each run, one of how they go with the
share, and a figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from equivbench.errors import FailedError
from equivbench.report.figures import OTHER_COLOURS, empty_figure
from equivbench.report.table import Column, Table
from equivbench.studies.gradients.record import GradientPoint, Gradients
from equivbench.studies.gradients.trends import Pooled
from equivbench.studies.record import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_QUANTITIES = {"ratio": "gradient ratio", "deviation": "deviation of parameters"}
_LEGEND = (
    "M: twirled error, V: equivariance error, share: V / (M + V), deviation: relative squared "
    "distance of the symmetry-breaking parameters from symmetric ones"
)
_LINES = ("-", "--", ":", "-.")
"""Styles of the runs, where colour stands for what is measured."""
_TWIRLED, _EQUIVARIANCE, _RATIO, _SHARE = OTHER_COLOURS
_DEVIATION = "#0072b2"


def gradient_table(analysis: Gradients, unit: str) -> Table:
    """A row for each snapshot; ``unit`` is that of the loss. The notes say what is missing."""
    where = f"{analysis.task}/{analysis.pair} {analysis.arm}, {analysis.run_id}"
    samples = f"{analysis.samples} {analysis.split} samples in {analysis.chunks} chunks"
    how = f"{analysis.weights} weights, {samples}, {analysis.rotations} rotations"
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
    rows, notes = [], []
    for name, label in _QUANTITIES.items():
        raw, detrended = pooled.correlations[name], pooled.correlations[f"{name} detrended"]
        # Where no run has the quantity, the notes of its points say so already.
        if raw.quantity.value is None:
            continue
        rows.append((label, raw.quantity, detrended.quantity, pooled.runs))
        for what, found in ((name, raw), (f"{name} detrended", detrended)):
            if found.reason is not None:
                notes.append(f"{kind(pooled)}, {what}: {found.reason}")
    columns = (
        Column("quantity", heading="log share with log", key=True),
        Column("correlation", kind="number", digits=2),
        Column("detrended", kind="number", digits=2, heading="with the trend taken out"),
        Column("runs"),
    )
    return Table(kind(pooled), columns, rows, notes)


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


def plot_gradients(analyses: Sequence[Gradients], path: Path) -> Path:
    """Draw ``analyses`` into ``path`` (the suffix chooses the format). Needs the extra
    ``plots``."""
    draw_gradients(analyses).savefig(path, dpi=150)
    return path


def draw_gradients(analyses: Sequence[Gradients]) -> Figure:
    """The figure: a line style a run. Bars are 95% intervals; a point without one is a dot, one
    without a value is not drawn."""
    if not any(analysis.points for analysis in analyses):
        raise FailedError("no analysis has a point to draw; analyse a run with snapshots first")
    figure = empty_figure(10.0, 4.5)
    norms, ratios = figure.subplots(1, 2)
    for index, analysis in enumerate(analyses):
        style = _LINES[index % len(_LINES)]
        for axes, colour, label, value in (
            (norms, _TWIRLED, "|grad M| (twirled error)", lambda point: point.twirled_norm),
            (
                norms,
                _EQUIVARIANCE,
                "|grad V| (equivariance error)",
                lambda point: point.equivariance_norm,
            ),
            (ratios, _RATIO, "|grad V| / |grad M|", lambda point: point.ratio),
            (ratios, _SHARE, "share of the loss", lambda point: Estimate(value=point.share)),
            (
                ratios,
                _DEVIATION,
                "deviation of parameters",
                lambda point: Estimate(value=point.deviation),
            ),
        ):
            _line(axes, analysis.points, value, colour, style, label if index == 0 else None)
    for axes in (norms, ratios):
        axes.set(xscale="log", yscale="log", xlabel="step")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines or axes.containers:
            axes.legend(frameon=False, fontsize="small")
    norms.set_ylabel("gradient norm [board metric / parameter]")
    styles = zip(
        analyses, (_LINES[index % len(_LINES)] for index in range(len(analyses))), strict=True
    )
    runs = ", ".join(
        f"{style} {each.task}/{each.pair} {each.arm} seed {each.seed}" for each, style in styles
    )
    figure.suptitle(runs, fontsize="small", parse_math=False)
    return figure


def _line(
    axes: Axes,
    points: Sequence[GradientPoint],
    value: Callable[[GradientPoint], Estimate],
    colour: str,
    style: str,
    label: str | None,
) -> None:
    """The positive values with their intervals: the axis is logarithmic."""
    known = [(point.step, value(point)) for point in points]
    shown = [
        (step, each.value, each)
        for step, each in known
        if each.value is not None and each.value > 0
    ]
    if not shown:
        return
    # An end that is open has no bar: one of no length would look like certainty.
    low = [math.nan if each.low is None else middle - each.low for _, middle, each in shown]
    high = [math.nan if each.high is None else each.high - middle for _, middle, each in shown]
    xs, ys = [step for step, _, _ in shown], [middle for _, middle, _ in shown]
    axes.errorbar(
        xs,
        ys,
        yerr=[low, high],
        color=colour,
        linestyle=style,
        marker="o",
        markersize=3,
        capsize=2,
        label=label,
    )
