"""The charts of the page as inline SVG: curves with bands, and ratios with their intervals in a
table's cells.

They are drawn here and not by matplotlib because the page's policy allows no attribute of style,
its style sheet colours light and dark, every mark has a title to hover, and a page has dozens of
them: matplotlib takes 30 times as long for one, twice the bytes, and would have to be installed
where only a board is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

from equivbench.gap.intervals import Quantity
from equivbench.report.html.scale import LogScale, log_scale
from equivbench.report.text import number_text, quantity_text

WIDTH, HEIGHT = 440, 290
LEFT, RIGHT, TOP, BOTTOM = 58, 428, 26, 244
COLOURS = 8
"""Series colours in the style sheet: ``c0`` to ``c7``."""
MARKERS = ("disc", "square", "triangle", "diamond", "cross")
BAR_WIDTH, BAR_HEIGHT = 150, 22
BAR_LEFT, BAR_RIGHT, BAR_MIDDLE = 6, 144, 11
MOST_BANDS = 12
"""Of more bands, one on the other, none could be told apart."""


@dataclass(frozen=True)
class Key:
    """How a series is drawn: a colour of the style sheet, a marker, and the dashes of its line."""

    colour: int
    marker: str
    dashes: str
    """``solid``, ``dashed`` or ``dotted``; empty for points that no line joins."""


def chart(
    title: str, x_label: str, y_label: str, x: LogScale, y: LogScale, body: Iterable[str]
) -> Markup:
    """An SVG image named ``title`` of ``body`` (escaped markup) in its frame."""
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">',
        f'<text class="axis-title" x="2" y="12">{escape(y_label)}</text>',
        f'<text class="axis-title" x="{RIGHT}" y="{HEIGHT - 6}" text-anchor="end">'
        f"{escape(x_label)}</text>",
        *_grid(x.ticks(6), y.ticks(6)),
        *body,
        "</svg>",
    ]
    return Markup("").join(map(Markup, parts))


def _grid(x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]]) -> list[str]:
    lines = "".join(f"M{LEFT} {at:.1f}H{RIGHT}" for at, _ in y_ticks) + "".join(
        f"M{at:.1f} {TOP}V{BOTTOM}" for at, _ in x_ticks
    )
    return [
        f'<path class="grid" d="{lines}"/>',
        f'<path class="frame" d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}"/>',
        *(
            f'<text x="{at:.1f}" y="{BOTTOM + 17}" text-anchor="middle">{escape(name)}</text>'
            for at, name in x_ticks
        ),
        *(
            f'<text x="{LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{escape(name)}</text>'
            for at, name in y_ticks
        ),
    ]


def marker(key: Key, x: float, y: float, title: str = "", *, size: float = 3.2) -> str:
    """One data point; ``title`` is what hovering it says."""
    shape = _outline(key.marker, x, y, size)
    drawn = f'<path class="mark c{key.colour} {key.marker}" d="{shape}">'
    return f"{drawn}<title>{escape(title)}</title></path>"


def swatch(key: Key) -> Markup:
    """The sample of a series in a legend, without meaning of its own to a screen reader; a marker
    alone if it has no line."""
    line = f'<path class="line c{key.colour} {key.dashes}" d="M1 6H33"/>' if key.dashes else ""
    left, width = (0, 34) if line else (11, 12)
    return Markup(
        f'<svg class="swatch" viewBox="{left} 0 {width} 12" width="{width}" height="12" '
        f'aria-hidden="true">{line}<path class="mark c{key.colour} {key.marker}" '
        f'd="{_outline(key.marker, 17, 6, 3.2)}"/></svg>'
    )


def _outline(name: str, x: float, y: float, r: float) -> str:
    if name == "disc":
        return f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z"
    if name == "square":
        return f"M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}z"
    if name == "triangle":
        return f"M{x:.1f} {y - 1.2 * r:.1f}l{1.2 * r:.2f} {2.1 * r:.2f}h{-2.4 * r:.2f}z"
    if name == "diamond":
        side = f"{1.3 * r:.2f}"
        return f"M{x:.1f} {y - 1.3 * r:.1f}l{side} {side}l-{side} {side}l-{side} -{side}z"
    return f"M{x - r:.1f} {y - r:.1f}l{2 * r} {2 * r}m{-2 * r} 0l{2 * r} {-2 * r}"


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
            series.key,
            px,
            py,
            f"{series.name}: {y_label} {number_text(point.y, 4)} "
            f"at {x_label} {number_text(point.x, 4)}",
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
    outline = "L".join(upper + lower)
    colour = f"c{series.key.colour}"
    return f'<path class="band {colour}" data-row="{series.row}" d="M{outline}z"/>'


def ratio_scale(quantities: Iterable[Quantity]) -> LogScale:
    """The axis that holds every estimate and every closed end of ``quantities``, and the tie at
    1."""
    ends = [end for one in quantities for end in (one.value, one.low, one.high) if end is not None]
    scale = log_scale([1.0, *ends], BAR_LEFT, BAR_RIGHT, room=0.08, least=0.5)
    assert scale is not None  # it holds 1
    return scale


def axis(scale: LogScale) -> Markup:
    """The column's axis, for its heading; the values stand in the cells too, so it is hidden from
    screen readers."""
    ticks = scale.ticks(5)
    names = "".join(
        f'<text x="{at:.1f}" y="10" text-anchor="middle">{escape(name)}</text>'
        for at, name in ticks
    )
    marks = "".join(f"M{at:.1f} 13V18" for at, _ in ticks)
    return Markup(
        f'<svg class="axis" viewBox="0 0 {BAR_WIDTH} 18" width="{BAR_WIDTH}" height="18" '
        f'aria-hidden="true">{names}'
        f'<path class="frame" d="M{BAR_LEFT} 18H{BAR_RIGHT}{marks}"/></svg>'
    )


def bar(quantity: Quantity, scale: LogScale, *, lead: str) -> Markup:
    """``quantity`` as a dot on its interval; an open end and a bound run to an arrow at the axis'
    end.

    ``lead`` (``below``, ``above`` or empty) colours it by the side of the tie on which the interval
    decides.
    """
    tie = f'<path class="tie" d="M{scale(1.0):.1f} 1V{BAR_HEIGHT - 1}"/>'
    size = f'viewBox="0 0 {BAR_WIDTH} {BAR_HEIGHT}" width="{BAR_WIDTH}" height="{BAR_HEIGHT}"'
    name = escape(quantity_text(quantity))
    return Markup(
        f'<svg class="interval {escape(lead)}" {size} role="img" aria-label="{name}">'
        f"{tie}{_drawn(quantity, scale)}</svg>"
    )


def _drawn(quantity: Quantity, scale: LogScale) -> str:
    value = quantity.value
    if value is None or value <= 0:
        return ""
    at = scale(value)
    if quantity.censored is not None:  # the true value lies beyond the bound
        edge, tip = {"above": (BAR_RIGHT, -6), "below": (BAR_LEFT, 6)}[quantity.censored]
        arrow = f"M{at:.1f} {BAR_MIDDLE}H{edge}m{tip} -4l{-tip} 4l{tip} 4"
        return f'<path class="bound" d="M{at:.1f} 5V17{arrow}"/>'
    low, high = quantity.low, quantity.high
    if low is None and high is None:
        return f'<circle class="dot" cx="{at:.1f}" cy="{BAR_MIDDLE}" r="4"/>'
    start = scale(low) if low is not None and low > 0 else float(BAR_LEFT)
    end = scale(high) if high is not None else float(BAR_RIGHT)
    caps = (
        f"M{start:.1f} 7V15"
        if low is not None
        else f"M{BAR_LEFT + 6} 7L{BAR_LEFT} {BAR_MIDDLE}L{BAR_LEFT + 6} 15"
    )
    caps += (
        f"M{end:.1f} 7V15"
        if high is not None
        else f"M{BAR_RIGHT - 6} 7L{BAR_RIGHT} {BAR_MIDDLE}L{BAR_RIGHT - 6} 15"
    )
    return (
        f'<path class="whisker" d="M{start:.1f} {BAR_MIDDLE}H{end:.1f}{caps}"/>'
        f'<circle class="dot" cx="{at:.1f}" cy="{BAR_MIDDLE}" r="4"/>'
    )
