"""All pictures that go into files, drawn by matplotlib from records alone: learning curves, a gap,
a sweep.

matplotlib is an extra (``plots``) and imported on use. The charts of the page are drawn by
:mod:`equivbench.report.html.charts`, which says why.
"""

from __future__ import annotations

import functools
import io
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equivbench.counted import counted
from equivbench.environment import required
from equivbench.errors import FailedError, UsageError
from equivbench.gap.efficiency import PairGap
from equivbench.records.counting import counting_runs
from equivbench.records.curves import (
    Evaluation,
    ResultWeights,
    common_curves,
    curve,
    is_on_whole_set,
)
from equivbench.records.declared import effective_variant
from equivbench.records.files import write_atomically
from equivbench.records.schema import RunRecord
from equivbench.report.arms import Sweep, SweepPoint, value_places
from equivbench.report.board import finished_runs
from equivbench.report.gaps import OTHER, headline, kernels_text, s_star_of, variant_text
from equivbench.report.publication import curve_points
from equivbench.report.text import number_text

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

COLOURS = {"equivariant": "#0072b2", "augmented": "#d55e00"}
OTHER_COLOURS = ("#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999")
"""Okabe and Ito's palette and a grey, told apart with any colour vision."""
_LINES = ("-", "--", ":", "-.")
"""Of the arms, where colour stands for the value."""
_BEHIND: dict[ResultWeights, str] = {"raw": "--", "ema": ":"}
_WEIGHTS_TEXT = {"raw": "not annealed", "ema": "their average (EMA)"}
_MEASURES = {
    "total": ("test loss", "log"),
    "share": ("equivariance error / loss", "log"),
    "explained": ("explained variance", "linear"),
}
"""The label and the scale of each figure of a test."""


def empty_figure(width: float, height: float) -> Figure:
    """A figure of that size in inches, laid out by constraints; ``FailedError`` without
    matplotlib."""
    return _figure_class()(figsize=(width, height), layout="constrained")


@functools.cache
def _figure_class() -> type[Figure]:
    """matplotlib's figure, which a notebook shows though no pyplot has made it."""
    required("matplotlib", "a figure is drawn", "plots")
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        def _repr_png_(self) -> bytes:
            picture = io.BytesIO()
            self.savefig(picture, format="png", dpi=100)
            return picture.getvalue()

    return ShownFigure


def require_drawable(path: Path) -> None:
    """Raise, before any work is done for it, what would stop a figure from being saved at ``path``.

    ``FailedError`` without matplotlib, ``UsageError`` for a suffix that it does not know or a
    folder that is not there.
    """
    known = empty_figure(1.0, 1.0).canvas.get_supported_filetypes()
    problem = f"there is no folder {path.parent}" * (not path.absolute().parent.is_dir())
    if path.suffix.lstrip(".") not in known:
        problem = f"its suffix is not one of {', '.join(sorted(known))}"
    if problem:
        raise UsageError(f"cannot draw into {path}: {problem}")


def save_figure(figure: Figure, path: Path) -> Path:
    """Write ``figure`` into ``path``, whose suffix chooses the format; the same bytes each time.

    Raises ``FailedError`` where it cannot be written; what was there before is then there still.
    """
    import matplotlib

    drawn, kind = io.BytesIO(), path.suffix.lstrip(".")
    with matplotlib.rc_context({"svg.hashsalt": "equivbench"}):
        dated = {"svg": "Date", "pdf": "CreationDate"}.get(kind)
        figure.savefig(drawn, format=kind, dpi=150, metadata={dated: None} if dated else None)
    write_atomically(path, drawn.getvalue())
    return path


def draw_curves(records: Sequence[RunRecord], *, unit: str = "") -> Figure:
    """The figure: loss on top, share and explained variance side by side below.

    Of each arm the annealed results by budget, a thin line per seed and a bold mean, and behind
    them the means of the un-annealed weights (dashed) and of their average (dotted).
    """
    figure = empty_figure(7.5, 6.0)
    grid = figure.add_gridspec(2, 2, height_ratios=(1.6, 1.0))
    panels = {
        "total": figure.add_subplot(grid[0, :]),
        "share": figure.add_subplot(grid[1, 0]),
        "explained": figure.add_subplot(grid[1, 1]),
    }
    _draw_measures(panels, records, unit)
    return figure


def draw_share(records: Sequence[RunRecord]) -> Figure:
    """The share alone, drawn as in :func:`draw_curves`: it depends on the weights that are looked
    at."""
    figure = empty_figure(7.5, 4.2)
    _draw_measures({"share": figure.add_subplot()}, records, "")
    return figure


def _counting_runs(records: Sequence[RunRecord]) -> list[RunRecord]:
    """One of each seed, as on the board: repetitions do not count, and an extension only where the
    run that it extends is not there."""
    base = {record.seed for record in records if record.budget.extends is None}
    return counting_runs(
        record for record in records if record.budget.extends is None or record.seed not in base
    )


def _draw_measures(panels: dict[str, Axes], records: Sequence[RunRecord], unit: str) -> None:
    shown = [record for record in records if record.rungs]
    if not shown:
        raise FailedError("no record has a rung to draw; run a pair first")
    arms: dict[str, list[RunRecord]] = defaultdict(list)
    for record in shown:
        arms[record.arm].append(record)
    colours = arm_colours(arms)
    top = next(iter(panels.values()))
    for arm, own in arms.items():
        runs = _counting_runs(own)
        label = f"{arm} ({runs[0].model.name}, {counted(len(runs), 'seed')})"
        for name, axes in panels.items():
            _seeds_and_mean(axes, runs, name, colours[arm], label)
    for weights, style in _BEHIND.items():
        top.plot([], [], style, color="0.4", linewidth=1.0, label=_WEIGHTS_TEXT[weights])
    first = shown[0]
    head = f"{first.task}/{first.pair}, {first.preset}, {first.environment.machine_key}"
    top.set_title(two_lines(head, effective_variant(first), judged_on(shown)))
    top.legend(frameon=False, fontsize="small")
    panels["share"].set_ylim(*_around(panels["share"]))
    for name, axes in panels.items():
        axes.set(xscale="log", xlabel="budget spent [s]")
        _finish(axes, name, unit)


def judged_on(records: Iterable[RunRecord]) -> str:
    """What of the test set the rungs of all ``records`` are read on, in words."""
    return part_text(all(map(is_on_whole_set, records)))


def part_text(whole: bool) -> str:
    """What of the test set losses are read on, in words: the ``whole`` of it or a part."""
    return f"on {'the whole' if whole else 'a part of the'} test set"


def two_lines(head: str, variant: Mapping[str, str], samples: str) -> str:
    """A title: what is drawn, and below it under which options and on which samples."""
    return f"{head}\n{', '.join(filter(None, (variant_text(variant), samples)))}"


def arm_colours(arms: Iterable[str]) -> dict[str, str]:
    """A colour for each of ``arms``; the two contestants always have the same."""
    found = dict(COLOURS)
    for arm in arms:
        found.setdefault(arm, OTHER_COLOURS[len(found) % len(OTHER_COLOURS)])
    return found


def in_unit(label: str, unit: str) -> str:
    """``label`` with the unit in brackets, unless it is a plain number."""
    return f"{label} [{unit}]" if unit not in ("", "1") else label


def _finish(axes: Axes, measure: str, unit: str) -> None:
    """Label and scale of the vertical axis, a faint grid, and no frame on top and at the right."""
    label, scale = _MEASURES[measure]
    axes.set(ylabel=in_unit(label, unit) if measure == "total" else label, yscale=scale)
    if measure == "explained":
        # Before it learns anything a model may be far worse than the baseline; that part of the
        # axis tells nothing.
        axes.set_ylim(max(-0.5, min(0.0, axes.get_ylim()[0])), 1.0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _around(axes: Axes) -> tuple[float, float]:
    """Limits of a logarithmic axis round all that is positive; a share at the floor may come out at
    or below zero."""
    import numpy as np

    values = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines])
    positive = values[values > 0]
    return (float(positive.min()) / 2, float(positive.max()) * 2) if len(positive) else (1e-3, 1.0)


def _seeds_and_mean(
    axes: Axes, runs: Sequence[RunRecord], measure: str, colour: str, label: str
) -> None:
    """The annealed results, a thin line per seed and a bold mean, before the means of the other
    weights; a mean is over the points that all seeds have."""
    for weights, style in _BEHIND.items():
        mean = _mean(common_curves(runs, weights), measure)
        axes.plot(*mean, style, color=colour, alpha=0.6, linewidth=1.0)
    for run in runs:
        axes.plot(*_mean([curve(run)], measure), color=colour, alpha=0.35, linewidth=0.8)
    mean = _mean(common_curves(runs), measure)
    axes.plot(*mean, color=colour, linewidth=2.0, marker="o", markersize=3, label=label)


def _mean(curves: Sequence[Sequence[Evaluation]], measure: str) -> NDArray[np.float64]:
    """Seconds and ``measure`` [2, points], over ``curves`` of equally many points."""
    import numpy as np

    points = [[(at.train_seconds, getattr(at.test, measure)) for at in each] for each in curves]
    # None becomes NaN.
    values = np.array(points, dtype=np.float64).reshape(len(points), -1, 2)
    mean: NDArray[np.float64] = values.mean(axis=0).T
    return mean


def plain_ticks(axis: Axis, mantissas: Sequence[float] = (1.0, 2.0, 5.0)) -> None:
    """Label a logarithmic ``axis`` with plain numbers at ``mantissas`` times the powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=mantissas))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def draw_gap(gap: PairGap, records: Sequence[RunRecord], *, unit: str = "") -> Figure:
    """Draw what the gap is: the mean loss of both arms against seconds, and where the curve of the
    better arm passes the final loss L of the other, at s* B.

    ``records`` are those that ``gap`` was measured on. Raises ``FailedError`` where budgets are not
    in seconds or an arm has no finished run.
    """
    if gap.budget["kind"] != "seconds":
        raise FailedError("the gap is drawn against seconds, and this budget is not in seconds")
    figure = empty_figure(7.5, 4.2)
    axes = figure.add_subplot()
    ends: dict[str, float] = {}
    for arm in ("augmented", "equivariant"):
        points = curve_points(finished_runs([run for run in records if run.arm == arm]))
        known = [(point.seconds, point.total.value) for point in points if point.total.value]
        if not known:
            raise FailedError(f"the {arm} arm of {gap.task}/{gap.pair} has no finished run to draw")
        style: dict[str, Any] = {"color": COLOURS[arm], "linewidth": 2, "marker": "o"}
        axes.plot(*zip(*known, strict=True), **style, markersize=3, label=f"{arm} arm")
        # On the samples of the curve; an extended one goes on beyond the budget.
        ends[arm] = min(known, key=lambda each: abs(each[0] - gap.budget["limit"]))[1]
    label = in_unit("test loss", unit)
    axes.set(xscale="log", yscale="log", xlabel="budget spent [s]", ylabel=label)
    head = f"{gap.task}/{gap.pair}, {gap.preset}, kernels {kernels_text(gap)}"
    axes.set_title(two_lines(head, gap.variant, judged_on(finished_runs(records))), loc="left")
    plain_ticks(axes.xaxis)
    _mark_tie(axes, gap, ends)
    axes.legend(frameon=False, loc="upper right", bbox_to_anchor=(0.93, 1.0))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _mark_tie(axes: Axes, gap: PairGap, ends: Mapping[str, float]) -> None:
    """The budget, the loss that the curve of the arm behind ``ends`` at, and where the other one
    passes it."""
    budget = gap.budget["limit"]
    low, high = 0.7 * axes.get_ylim()[0], axes.get_ylim()[1]
    axes.set_ylim(low, high)
    grey: dict[str, Any] = {"color": "0.4", "linewidth": 1.0}
    axes.axvline(budget, **grey)
    small: dict[str, Any] = {
        "textcoords": "offset points",
        "color": "0.2",
        "fontsize": 9,
        "ha": "right",
    }
    axes.annotate("budget B", (budget, high), (-5, 0), rotation=90, va="top", **small)
    found = headline(gap)
    if found is None:
        return
    behind, leader = found[0], OTHER[found[0]]
    s_star = s_star_of(gap, leader).steady
    value = s_star.value
    if value is None or s_star.censored is not None:
        return
    level = ends[behind]
    axes.plot([value * budget, value * budget, budget], [low, level, level], "--", **grey)
    where = (value * budget, level)
    axes.annotate(f"L: where the {behind} arm ends", where, (-6, -2), va="top", **small)
    text = f"s* B: the {leader} arm is there (s* = {number_text(value, 2)})"
    axes.annotate(text, (value * budget, low), (-6, 4), **small)


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
    places = value_places([point.value for point in sweep.points])
    shade = {
        value: colormaps["viridis"](0.9 * index / max(len(places) - 1, 1))
        for index, value in enumerate(places)
    }
    colours = arm_colours(sweep.arms)
    styles = dict(zip(sweep.arms, itertools.cycle(_LINES), strict=False))
    for measure, ends, ways in zip(_MEASURES, above, below, strict=True):
        for arm in sweep.arms:
            _draw_ends(ends, sweep.of(arm), places, measure, colours[arm])
        for point in sweep.points:
            line = [
                (passed.train_seconds, getattr(passed.test, measure).value)
                for passed in point.rungs
                if passed.train_seconds > 0
            ]
            known = [(seconds, value) for seconds, value in line if value is not None]
            style = {"color": shade[point.value], "linestyle": styles[point.arm]}
            ways.plot([x for x, _ in known], [y for _, y in known], **style)
        for axes in (ends, ways):
            _finish(axes, measure, sweep.unit)
        ways.set(xlabel="budget spent [s]", xscale="log")
        ends.set(xlabel=title)
        scaled = min(places.values()) > 0 and len(places) > 1
        if sweep.axis == "optimizer" or scaled:
            if sweep.axis != "optimizer":
                ends.set(xscale="log")
            ends.set_xticks(list(places.values()), list(places))
            ends.xaxis.minorticks_off()
    above[0].legend(frameon=False)
    last = below[2]
    handles = [last.plot([], [], color=shade[value], label=value)[0] for value in places]
    handles += [
        last.plot([], [], color="black", linestyle=style, label=arm)[0]
        for arm, style in styles.items()
    ]
    last.legend(handles=handles, title=title, frameon=False, fontsize="small")
    figure.suptitle(
        f"{sweep.task}/{sweep.pair}, {sweep.preset}, {sweep.budget} an arm, {sweep.machine_key}"
    )
    return figure


def _draw_ends(
    axes: Axes, points: list[SweepPoint], places: dict[str, float], measure: str, colour: str
) -> None:
    """Where the points of an arm end, with their intervals over seeds."""
    found = [(places[point.value], getattr(point.final, measure)) for point in points]
    known = [(x, quantity) for x, quantity in found if quantity.value is not None]
    label = points[0].arm
    if len(known) == 1 and len(places) > 1:
        # The arm is the same at every point.
        axes.axhline(known[0][1].value, color=colour, linestyle="--", label=label)
        return
    low = [0.0 if each.low is None else each.value - each.low for _, each in known]
    high = [0.0 if each.high is None else each.high - each.value for _, each in known]
    style: dict[str, Any] = {"color": colour, "marker": "o", "markersize": 4, "capsize": 3}
    axes.errorbar(
        [x for x, _ in known],
        [each.value for _, each in known],
        yerr=[low, high],
        label=label,
        **style,
    )
