"""Curves of several series over one logarithmic axis each way, with bands where a curve has
intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from equivbench.report.html.frame import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, Key, chart, marker
from equivbench.report.html.scale import LogScale, log_scale

MOST_BANDS = 12


@dataclass(frozen=True)
class Point:
    """A point of a curve with its interval, where it has one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """A named curve, its points in order of x."""

    name: str
    key: Key
    points: tuple[Point, ...]
    row: str = ""
    """Id of the table's row that the curve belongs to."""


def line_chart(
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    *,
    decades: float | None = None,
) -> Markup | None:
    """The chart of ``series``; points that a logarithm cannot show (at or below zero) are left out.
    None without any.

    With ``decades`` the vertical axis reaches no further below its highest point: what lies lower
    runs along the axis, which says so. Else a curve at rounding would press the others into a line.
    """
    shown = [
        replace(one, points=tuple(p for p in one.points if p.x > 0 and p.y > 0)) for one in series
    ]
    shown = [one for one in shown if one.points]
    x = log_scale((p.x for one in shown for p in one.points), LEFT, RIGHT)
    heights = [p.y for one in shown for p in one.points]
    lowest = 0.0 if decades is None else max(heights, default=0.0) * 10**-decades
    y = log_scale([height for height in heights if height >= lowest], BOTTOM, TOP)
    if x is None or y is None:
        return None
    # Bands first: they must not hide another series' line. Of many, one on the other, none could be
    # told apart.
    bands = [_band(one, x, y) for one in shown] if len(shown) <= MOST_BANDS else []
    body = bands + [_curve(one, x, y, x_label, y_label) for one in shown]
    if any(math.log10(height) < y.low for height in heights):
        body.append(f'<text x="2" y="{HEIGHT - 6}">lines along the axis lie below it</text>')
    return chart(title, x_label, y_label, x, y, body)


def _curve(series: Series, x: LogScale, y: LogScale, x_label: str, y_label: str) -> str:
    at = [(x(p.x), y(p.y)) for p in series.points]
    path = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in at)
    marks = "".join(
        marker(
            series.key, px, py, f"{series.name}: {y_label} {point.y:.4g} at {x_label} {point.x:.4g}"
        )
        for (px, py), point in zip(at, series.points, strict=True)
    )
    line = f'<path class="line c{series.key.colour} {series.key.dashes}" d="{path}"/>'
    return f'<g class="series" data-row="{series.row}">{line}{marks}</g>'


def _band(series: Series, x: LogScale, y: LogScale) -> str:
    known = [
        (x(p.x), p.low, p.high)
        for p in series.points
        if p.low is not None and p.high is not None and p.low > 0
    ]
    if len(known) < 2:
        return ""
    upper = [f"{px:.1f} {y(high):.1f}" for px, _, high in known]
    lower = [f"{px:.1f} {y(low):.1f}" for px, low, _ in reversed(known)]
    return f'<path class="band c{series.key.colour}" data-row="{series.row}" d="M{"L".join(upper + lower)}z"/>'
