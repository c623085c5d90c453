"""The picture of the headline: the loss ratio of a pair against the budget in device-hours, a curve
per fraction of the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from equivbench.errors import FailedError, IncomparableError
from equivbench.gap.leads import Course
from equivbench.report.figures import empty_figure, require_drawable
from equivbench.report.text import printable
from equivbench.studies.claims.headline import Headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure


def plot_headline(headlines: Sequence[Headline], path: str | Path) -> Path:
    """Draw the headlines of one pair on one machine into ``path`` (the suffix chooses the format).
    Needs the extra ``plots``.

    Raises ``FailedError`` if none has a course to draw or matplotlib is missing,
    ``IncomparableError`` if they are of several pairs, presets, machines or data sets,
    ``UsageError`` for a format that matplotlib does not know.
    """
    path = Path(path)
    require_drawable(path)
    draw_headline(headlines).savefig(path, dpi=150)
    return path


def draw_headline(headlines: Sequence[Headline]) -> Figure:
    """The figure: the ratio with its band, compilation left out (solid) and counted (dashed, where
    there was any).

    A dot marks where the lead changes hands, open where the intervals do not decide it.
    """
    import numpy as np
    from matplotlib import colormaps

    shown = [
        (each, each.steady)
        for each in headlines
        if each.steady is not None and _finite(each.steady)
    ]
    if not shown:
        raise FailedError(
            "no headline has a loss ratio over the budget to draw; both arms need finished and "
            "timed runs"
        )
    places = {_place(each) for each, _ in shown}
    if len(places) > 1:
        raise IncomparableError(
            f"cannot draw {len(places)} settings in one figure; choose one pair, preset, machine "
            f"and data set"
        )
    first = shown[0][0]
    figure = empty_figure(7.5, 4.5)
    axes = figure.add_subplot()
    shown.sort(key=lambda item: -(item[0].fraction or 0.0))
    shades = colormaps["viridis"]
    for place, (each, steady) in enumerate(shown):
        # The whole data set is the darkest; the palest end of the map would vanish on white.
        colour = shades(0.8 * place / max(len(shown) - 1, 1))
        _draw(axes, steady, colour, label=_label(each, shown), linestyle="-")
        if each.all_in is not None and each.all_in != steady and _finite(each.all_in):
            _draw(axes, each.all_in, colour, label=None, linestyle="--")
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel=f"budget of each arm [{first.unit}]",
        ylabel="test loss, equivariant / augmented",
    )
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.8), max(high, 1.25))
    _plain_numbers(axes.yaxis, (1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0, 8.0, 9.0))
    seconds = axes.secondary_xaxis(
        "top", functions=(lambda x: np.multiply(x, 3600), lambda x: np.divide(x, 3600))
    )
    seconds.set_xlabel("[s]")
    _plain_numbers(seconds.xaxis, (1.0, 2.0, 5.0))
    for where, va, text in (
        (0.98, "top", "augmented arm ahead"),
        (0.02, "bottom", "equivariant arm ahead"),
    ):
        axes.text(
            0.01,
            where,
            text,
            transform=axes.transAxes,
            ha="left",
            va=va,
            fontsize="small",
            color="0.35",
        )
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    title = f"{first.gap.task}/{first.gap.pair}, {first.gap.preset}, {first.gap.machine_key}"
    axes.set_title(printable(title), parse_math=False)
    return figure


def _draw(
    axes: Axes, course: Course, colour: tuple[float, ...], *, label: str | None, linestyle: str
) -> None:
    hours = [seconds / 3600 for seconds in course.seconds]
    known = [
        (hour, each.value, each.low, each.high)
        for hour, each in zip(hours, course.ratio, strict=True)
        if each.value is not None
    ]
    axes.plot(
        [x for x, *_ in known],
        [y for _, y, *_ in known],
        color=colour,
        linestyle=linestyle,
        linewidth=1.8,
        label=label,
    )
    if label is None:
        return
    banded = [(x, low, high) for x, _, low, high in known if low is not None and high is not None]
    x, low, high = ([point[k] for point in banded] for k in range(3))
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    for change in course.changes:
        face = colour if change.decided else "white"
        assert change.seconds.value is not None
        axes.plot(
            [change.seconds.value / 3600],
            [1.0],
            marker="o",
            color=colour,
            markerfacecolor=face,
            zorder=3,
        )


def _plain_numbers(axis: Axis, digits: Sequence[float]) -> None:
    """Ticks at ``digits`` of each decade as plain numbers, for an axis of about a decade has few
    powers of ten on it."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=digits))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _finite(course: Course) -> bool:
    return any(each.value is not None for each in course.ratio)


def _place(each: Headline) -> tuple[object, ...]:
    gap = each.gap
    switches = sorted(
        (name, value) for name, value in gap.variant.items() if name not in ("sweep", "value")
    )
    return (
        gap.task,
        gap.pair,
        gap.preset,
        gap.machine_key,
        gap.dataset["name"],
        gap.dataset["sha256"],
        gap.rules_version,
        *switches,
    )


def _label(each: Headline, shown: Sequence[tuple[Headline, Course]]) -> str:
    """The fraction of the data, and the kernels where they tell curves apart."""
    data = (
        "all data"
        if each.fraction == 1
        else f"{each.fraction:.3g} of the data"
        if each.fraction
        else "part of the data"
    )
    kernels = {tuple(sorted(other.gap.kernels.items())) for other, _ in shown}
    if len(kernels) == 1:
        return data
    # A legend takes what stands between dollars for mathematics.
    return printable(f"{data}, {' / '.join(dict.fromkeys(each.gap.kernels.values()))}").replace(
        "$", r"\$"
    )
