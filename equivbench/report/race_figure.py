"""The picture of a race: the loss of every arm against the seconds that it was trained for, and
against what a prediction costs, with the Pareto front of each."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from equivbench.records.disturbed import disturbance
from equivbench.report.figures import (
    arm_colours,
    empty_figure,
    in_unit,
    judged_on,
    part_text,
    plain_ticks,
)
from equivbench.report.formats import setting_text
from equivbench.report.publication import curve_points
from equivbench.report.race import Race, RaceRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "osD^vP*X"
"""One a pair."""
_FRONT: Mapping[str, Any] = {"color": "0.3", "linestyle": ":", "linewidth": 1.2, "zorder": 1}


def draw_race(race: Race) -> Figure:
    """Draw ``race``, rows without a result left out.

    On the left the annealed loss of each arm by budget, at the end of which they all have spent as
    much; on the right the loss at the end against the time of a forward pass a sample, with a
    line from an arm to its averages over 2, 4, 8 rotations. The title of each says on what of the
    test set it is. Dotted: the lowest loss at most so many seconds. Colours are arms, markers
    pairs.
    """
    rows = [each for each in race.rows if each.loss.value is not None and each.loss.value > 0]
    figure = empty_figure(11.0, 5.2)
    training, inference = figure.subplots(1, 2)
    colours = arm_colours(each.row.arm for each in rows)
    markers = dict(
        zip(dict.fromkeys(each.row.pair for each in rows), itertools.cycle(_MARKERS), strict=False)
    )

    def style(each: RaceRow) -> dict[str, Any]:
        return {"color": colours[each.row.arm], "marker": markers[each.row.pair], "markersize": 5}

    _draw_training(training, [each for each in rows if each.averaged_over is None], style)
    _draw_inference(inference, rows, style)
    training.set(xlabel="training [s]", ylabel=in_unit("test loss", race.unit))
    inference.set(xlabel="inference [ms a sample]")
    of_curves = judged_on(run for each in rows for run in each.runs)
    training.set_title(f"by budget, {of_curves}", fontsize="medium")
    inference.set_title(f"at the end, {part_text(True)}", fontsize="medium")
    for axes in (training, inference):
        axes.set(xscale="log", yscale="log")
        plain_ticks(axes.xaxis)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = training.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(setting_text(race.setting), fontsize="medium")
    return figure


def _draw_training(axes: Axes, rows: Sequence[RaceRow], style: Any) -> None:
    seen = []
    for each in rows:
        points = [
            (point.seconds, point.total.value)
            # Of runs that did not have their machine no seconds count.
            for point in curve_points([run for run in each.runs if disturbance(run) is None])
            if point.total.value
        ]
        seen += points
        axes.plot(*_columns(points), label=each.label, linewidth=1.4, **style(each))
    axes.plot(*_columns(front_steps(seen)), **_FRONT)


def _draw_inference(axes: Axes, rows: Sequence[RaceRow], style: Any) -> None:
    arms: dict[tuple[str, str, str], list[RaceRow]] = defaultdict(list)
    for each in rows:
        if each.inference:
            arms[each.row.pair, each.row.arm, each.row.setup].append(each)
    seen = []
    for own in arms.values():
        own.sort(key=lambda each: each.averaged_over or 1)
        points = [(1e3 / (each.inference or 1.0), each.loss.value or 0.0) for each in own]
        seen += points
        axes.plot(*_columns(points), linewidth=1.0, **style(own[0]))
        for each, (x, y) in zip(own, points, strict=True):
            low, high = each.loss.low, each.loss.high
            if low is not None and high is not None:
                axes.vlines(x, low, high, color=style(each)["color"], linewidth=1.0)
            if each.averaged_over is not None:
                axes.annotate(
                    str(each.averaged_over),
                    (x, y),
                    (4, 4),
                    textcoords="offset points",
                    fontsize="small",
                )
    axes.plot(*_columns(front_steps(seen)), **_FRONT)


def front_steps(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corners of the lowest loss at or below each cost, of ``points`` (cost, loss): a staircase
    that ends at the largest cost."""
    corners: list[tuple[float, float]] = []
    cost = 0.0
    for cost, loss in sorted(points):
        if not corners:
            corners.append((cost, loss))
        elif loss < corners[-1][1]:
            corners += [(cost, corners[-1][1]), (cost, loss)]
    if corners and cost > corners[-1][0]:
        corners.append((cost, corners[-1][1]))
    return corners


def _columns(points: Sequence[tuple[float, float]]) -> Iterator[list[float]]:
    """The costs, and the losses."""
    yield [cost for cost, _ in points]
    yield [loss for _, loss in points]
