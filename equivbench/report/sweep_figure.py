"""The picture of a sweep: what each point ends with, over the axis, and below it how it got there,
over the budget."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from equivbench.errors import FailedError
from equivbench.gap.intervals import Quantity
from equivbench.report.curves import COLOURS, OTHER_COLOURS
from equivbench.report.figures import empty_figure
from equivbench.report.sweeps import Figures, Sweep, SweepPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES = ("-", "--", ":", "-.")
"""Of the arms, where colour stands for the value."""
_MEASURES: tuple[tuple[str, str, Callable[[Figures], Quantity]], ...] = (
    ("test loss", "log", lambda figures: figures.total),
    ("equivariance error / loss", "log", lambda figures: figures.share),
    ("explained variance", "linear", lambda figures: figures.explained),
)


def plot_sweep(sweep: Sweep, path: Path, *, title: str) -> Path:
    """Draw ``sweep`` into ``path`` (the suffix chooses the format); ``title`` labels its axis.
    Needs the extra ``plots``."""
    draw_sweep(sweep, title=title).savefig(path, dpi=150)
    return path


def draw_sweep(sweep: Sweep, *, title: str) -> Figure:
    """The figure. Bars are 95% intervals over seeds; a share at or below zero (the numerical floor)
    has no place in it."""
    from matplotlib import colormaps

    if not any(point.finished for point in sweep.points):
        raise FailedError(
            f"no point of the sweep of {sweep.task}/{sweep.pair} has a finished run to draw"
        )
    figure = empty_figure(11.0, 6.5)
    above, below = figure.subplots(2, 3)
    numbers = _positions(sweep)
    colours = dict(COLOURS)
    shades = colormaps["viridis"]
    values = list(dict.fromkeys(point.value for point in sweep.points))
    shade = {
        value: shades(0.9 * index / max(len(values) - 1, 1)) for index, value in enumerate(values)
    }
    for index, arm in enumerate(sweep.arms):
        colour = colours.setdefault(arm, OTHER_COLOURS[len(colours) % len(OTHER_COLOURS)])
        points = sweep.of(arm)
        for ends, ways, (_, _, measure) in zip(above, below, _MEASURES, strict=True):
            _ends(ends, points, numbers, measure, colour, arm)
            for point in points:
                line = [
                    (passed.train_seconds, measure(passed.test).value)
                    for passed in point.trace
                    if passed.train_seconds > 0
                ]
                known = [(seconds, value) for seconds, value in line if value is not None]
                ways.plot(
                    [seconds for seconds, _ in known],
                    [value for _, value in known],
                    color=shade[point.value],
                    linestyle=_LINES[index % len(_LINES)],
                )
    for ends, ways, (label, scale, _) in zip(above, below, _MEASURES, strict=True):
        unit = f" [{sweep.unit}]" if sweep.unit and label == "test loss" else ""
        for axes in (ends, ways):
            axes.set(ylabel=label + unit, yscale=scale)
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            if label == "explained variance":
                # As in the picture of a run: how much worse than the baseline a model is tells
                # nothing.
                axes.set_ylim(max(-0.5, min(0.0, axes.get_ylim()[0])), 1.0)
        ways.set(xlabel="budget spent [s]", xscale="log")
        _label_values(ends, sweep, numbers, title)
    above[0].legend(frameon=False)
    handles = [below[2].plot([], [], color=shade[value], label=value)[0] for value in values]
    styles = zip(sweep.arms, _LINES, strict=False)
    handles += [
        below[2].plot([], [], color="black", linestyle=style, label=arm)[0] for arm, style in styles
    ]
    below[2].legend(handles=handles, title=title, frameon=False, fontsize="small")
    figure.suptitle(
        f"{sweep.task}/{sweep.pair}, {sweep.preset}, {sweep.budget} an arm, {sweep.machine_key}"
    )
    return figure


def _positions(sweep: Sweep) -> dict[str, float]:
    """Where each value lies on the axis: at itself if all are numbers, else at its place in the
    order."""
    values = list(dict.fromkeys(point.value for point in sweep.points))
    try:
        return {value: float(value) for value in values}
    except ValueError:
        return {value: float(place) for place, value in enumerate(values)}


def _label_values(axes: Axes, sweep: Sweep, numbers: dict[str, float], title: str) -> None:
    axes.set(xlabel=title)
    if sweep.axis == "optimizer":
        axes.set_xticks(list(numbers.values()), list(numbers))
    elif min(numbers.values()) > 0 and len(numbers) > 1:
        axes.set(xscale="log")
        axes.set_xticks(list(numbers.values()), list(numbers))
        axes.xaxis.minorticks_off()


def _ends(
    axes: Axes,
    points: list[SweepPoint],
    numbers: dict[str, float],
    measure: Callable[[Figures], Quantity],
    colour: str,
    label: str,
) -> None:
    found = [(numbers[point.value], measure(point.final)) for point in points]
    known = [(x, quantity, quantity.value) for x, quantity in found if quantity.value is not None]
    if len(known) == 1 and len(numbers) > 1:
        # The arm is the same at every point.
        axes.axhline(known[0][2], color=colour, linestyle="--", label=label)
        return
    low = [
        value - (value if quantity.low is None else quantity.low) for _, quantity, value in known
    ]
    high = [
        (value if quantity.high is None else quantity.high) - value for _, quantity, value in known
    ]
    xs, ys = [x for x, _, _ in known], [value for _, _, value in known]
    axes.errorbar(
        xs, ys, yerr=[low, high], color=colour, marker="o", markersize=4, capsize=3, label=label
    )
