"""The picture of gradients along training: their norms, and their ratio and the deviation beside
the share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from equivbench.errors import FailedError
from equivbench.report.curves import OTHER_COLOURS
from equivbench.report.figures import empty_figure
from equivbench.studies.gradients.record import GradientPoint, Gradients
from equivbench.studies.record import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES = ("-", "--", ":", "-.")
"""Of the runs, where colour stands for what is measured."""
_TWIRLED, _EQUIVARIANCE, _RATIO, _SHARE = OTHER_COLOURS
_DEVIATION = "#0072b2"


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
