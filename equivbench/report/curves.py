"""The picture of a run: test loss against budget seconds of both arms, and below it how the
symmetry error fell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from equivbench.errors import FailedError, IncomparableError
from equivbench.records.schema import RunRecord, Test
from equivbench.report.figures import empty_figure, require_drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"equivariant": "#0072b2", "augmented": "#d55e00"}
OTHER_COLOURS = ("#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Okabe and Ito's palette, told apart with any colour vision."""


def plot_curves(records: Sequence[RunRecord], path: str | Path, *, unit: str = "") -> Path:
    """Draw the records of one pair into ``path`` (the suffix chooses the format) and return it.
    Needs the extra ``plots``.

    Raises ``FailedError`` if there is nothing to draw or matplotlib is missing,
    ``IncomparableError`` if the records are of several pairs, presets, machines, variants or kinds
    of budget, ``UsageError`` for a format that matplotlib does not know.
    """
    path = Path(path)
    require_drawable(path)
    draw_curves(records, unit=unit).savefig(path, dpi=150)
    return path


def draw_curves(records: Sequence[RunRecord], *, unit: str = "") -> Figure:
    """The figure: loss on top, share and explained variance side by side below; a thin line per
    seed, a bold mean."""
    shown = [record for record in records if record.trace]
    if not shown:
        raise FailedError("no record has a trace to draw; run a pair first")
    settings = {
        (
            each.task,
            each.pair,
            each.preset,
            each.environment.machine_key,
            each.budget.kind,
            *sorted(each.variant.items()),
        )
        for each in shown
    }
    if len(settings) > 1:
        raise IncomparableError(
            f"cannot draw {len(settings)} settings in one figure; choose one pair, preset, machine and variant"
        )
    arms: dict[str, list[RunRecord]] = defaultdict(list)
    for record in shown:
        arms[record.arm].append(record)
    figure = empty_figure(7.5, 6.0)
    grid = figure.add_gridspec(2, 2, height_ratios=(1.6, 1.0))
    loss, share, explained = (
        figure.add_subplot(grid[where]) for where in ((0, slice(None)), (1, 0), (1, 1))
    )
    colours = dict(COLOURS)
    for arm, runs in arms.items():
        colour = colours.setdefault(arm, OTHER_COLOURS[len(colours) % len(OTHER_COLOURS)])
        seeds = f"{len(runs)} seed{'s' * (len(runs) != 1)}"
        _lines(
            loss, runs, lambda test: test.total, colour, f"{arm} ({runs[0].model.name}, {seeds})"
        )
        _lines(share, runs, lambda test: test.share, colour, None)
        _lines(explained, runs, lambda test: test.explained, colour, None)
    first = shown[0]
    loss.set(
        title=f"{first.task}/{first.pair}, {first.preset}, {first.environment.machine_key}",
        yscale="log",
    )
    loss.set_ylabel(f"test loss [{unit}]" if unit else "test loss")
    loss.legend(frameon=False)
    share.set(ylim=_around(share), yscale="log", ylabel="equivariance error / loss")
    # Before it learns anything a model may be far worse than the baseline; that part of the axis
    # tells nothing.
    explained.set(
        ylim=(max(-0.5, min(0.0, explained.get_ylim()[0])), 1.0), ylabel="explained variance"
    )
    for axes in (loss, share, explained):
        axes.set(xscale="log", xlabel="budget spent [s]")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _around(axes: Axes) -> tuple[float, float]:
    """Limits of a logarithmic axis round all that is positive; a share at the floor may come out at
    or below zero."""
    import numpy as np

    values = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines])
    positive = values[values > 0]
    return (float(positive.min()) / 2, float(positive.max()) * 2) if len(positive) else (1e-3, 1.0)


def _lines(
    axes: Axes,
    runs: Sequence[RunRecord],
    value: Callable[[Test], float | None],
    colour: str,
    label: str | None,
) -> None:
    """A thin line per seed, and a bold one through the means over seeds where all evaluate equally
    often."""
    import numpy as np

    curves = []
    for run in runs:
        points = [
            (point.train_seconds, value(point.test))
            for point in run.trace
            if point.train_seconds > 0
        ]
        curve = np.array(
            [(seconds, np.nan if y is None else y) for seconds, y in points], dtype=np.float64
        ).reshape(-1, 2)
        curves.append(curve)
        axes.plot(*curve.T, color=colour, alpha=0.35, linewidth=0.8)
    if len({len(curve) for curve in curves}) == 1:
        axes.plot(
            *np.mean(curves, axis=0).T,
            color=colour,
            linewidth=2.0,
            marker="o",
            markersize=3,
            label=label,
        )
    else:
        axes.plot([], [], color=colour, label=label)
