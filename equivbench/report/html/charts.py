"""The charts of the page as inline SVG: curves with bands, rooflines, and ratios with their
intervals in a table's cells.

What lies where is computed here, on logarithmic axes; the markup is in ``templates/svg.html``.
matplotlib does not draw them because the page's policy allows no attribute of style, its style
sheet colours light and dark, every mark has a title to hover, and a page has dozens of them:
matplotlib takes 30 times as long for one, twice the bytes, and would have to be installed where
only a board is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from equivbench.gap.intervals import Quantity
from equivbench.records.line_files import KernelSamples
from equivbench.records.roofline import ARITHMETIC
from equivbench.report.text import number_text, percent_text, printable, quantity_text
from equivbench.specs import MODES

LEFT, RIGHT, TOP, BOTTOM = 58, 428, 26, 244
"""The frame of a chart, as ``templates/svg.html`` draws it."""
COLOURS = 8
"""Series colours in the style sheet: ``c0`` to ``c7``."""
MARKERS = {
    "disc": (-3.2, 0.0, "a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0 -6.4 0z"),
    "square": (-3.2, -3.2, "h6.4v6.4h-6.4z"),
    "triangle": (0.0, -3.84, "l3.84 6.72h-7.68z"),
    "diamond": (0.0, -4.16, "l4.16 4.16l-4.16 4.16l-4.16 -4.16z"),
    "cross": (-3.2, -3.2, "l6.4 6.4m-6.4 0l6.4 -6.4"),
}
"""Where the outline of each begins, from the point that it marks, and how it goes on."""
BAR_LEFT, BAR_RIGHT, BAR_MIDDLE = 6, 144, 11
MOST_BANDS = 12
"""Of more bands, one on the other, none could be told apart."""
TIMES = "\N{MULTIPLICATION SIGN}"
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MANTISSAS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0))
STEPS = (5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)


@cache
def environment() -> Environment:
    """The templates of the page; whatever they print is escaped and without control characters
    unless it is markup of our own."""
    found = Environment(
        loader=PackageLoader("equivbench.report.html", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: (
            printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
        ),
    )
    found.filters["number"] = number_text
    return found


def drawn(macro: str, *values: Any) -> Markup:
    """What a macro of ``templates/svg.html`` makes of ``values``."""
    module: Any = environment().get_template("svg.html").module
    markup: Markup = getattr(module, macro)(*values)
    return markup


@dataclass(frozen=True)
class LogScale:
    """Decimal logarithms ``low`` to ``high`` over the pixels ``start`` to ``end``, so that no value
    overflows on the way."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Pixels of a positive ``value``, held within the axis."""
        return self.at(math.log10(value))

    def at(self, log: float) -> float:
        """Pixels of the decimal logarithm ``log``, held within the axis."""
        fraction = (min(max(log, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + fraction * (self.end - self.start)

    def ticks(self, at_most: int = 6) -> list[tuple[float, str]]:
        """(pixels, label) of at most ``at_most`` ticks: decades, else 1-3, 1-2-5, else even steps
        within a decade."""
        first, last = math.ceil(self.low), math.floor(self.high)
        if self.high - self.low > 2.5:
            stride = math.ceil((last - first + 1) / at_most)
            found = [(1.0, power) for power in range(first + (-first) % stride, last + 1, stride)]
        else:
            found = []
            for mantissas in MANTISSAS:
                ticks = [
                    (mantissa, power)
                    for power in range(first - 1, last + 2)
                    for mantissa in mantissas
                    if self.low <= power + math.log10(mantissa) <= self.high
                ]
                found = ticks if len(found) < len(ticks) <= at_most else found
            if len(found) < 3:
                found = self._even(at_most) or found
        return [
            (self.at(power + math.log10(mantissa)), label(mantissa, power))
            for mantissa, power in found
        ]

    def _even(self, at_most: int) -> list[tuple[float, int]]:
        """Multiples of the least round step that gives no more than ``at_most`` ticks."""
        power = math.floor(self.low)
        low, high = 10 ** (self.low - power), 10 ** (self.high - power)
        found: list[tuple[float, int]] = []
        for step in STEPS:
            counts = range(max(1, math.ceil(low / step)), math.floor(high / step) + 1)
            if len(counts) <= at_most:
                found = [(round(count * step, 6), power) for count in counts]
        return found


def log_scale(
    values: Iterable[float], start: float, end: float, *, room: float = 0.04, least: float = 0.1
) -> LogScale | None:
    """The scale that holds all positive ``values`` with ``room`` (a fraction of the span) at both
    ends; None without any.

    The span is at least ``least`` decades, so that rounding noise does not fill the axis.
    """
    logs = [math.log10(value) for value in values if value > 0 and math.isfinite(value)]
    return span(logs, start, end, room=room, least=least) if logs else None


def span(logs: Sequence[float], start: float, end: float, *, room: float, least: float) -> LogScale:
    """As :func:`log_scale`, from the decimal logarithms of the values."""
    low, high = min(logs), max(logs)
    lacking = max(0.0, least - (high - low)) / 2
    low, high = low - lacking, high + lacking
    return LogScale(low - room * (high - low), high + room * (high - low), start, end)


def label(mantissa: float, power: int) -> str:
    """``mantissa`` times ten to the ``power`` as on an axis: ``0.02``, ``500``, ``10⁻⁶``,
    ``2×10⁷``."""
    if -4 < power < 5:
        value = mantissa * 10.0**power
        return f"{value:.4g}" if power < 3 else f"{value:,.0f}"
    ten = f"10{str(power).translate(SUPERSCRIPT)}"
    return ten if mantissa == 1 else f"{mantissa:.4g}{TIMES}{ten}"


@dataclass(frozen=True)
class Key:
    """How a series is drawn: a colour of the style sheet, a marker, and the dashes of its line."""

    colour: int
    marker: str
    dashes: str
    """``solid``, ``dashed`` or ``dotted``; empty for points that no line joins."""

    def outline(self, x: float, y: float) -> str:
        """The path of the marker at (``x``, ``y``)."""
        right, down, path = MARKERS[self.marker]
        return f"M{x + right:.1f} {y + down:.1f}{path}"


def swatch(key: Key) -> Markup:
    """The sample of a series in a legend, without meaning of its own to a screen reader; a marker
    alone if it has no line."""
    return drawn("swatch", key)


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
    line: bool = True
    """Whether a line joins the points, and whether they are marked (``marks``)."""
    marks: bool = True


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
    # Bands first: they must not hide another series' line.
    bands = [(one, _band(one, x, y)) for one in shown] if len(shown) <= MOST_BANDS else []
    curves = [(one, [(x(p.x), y(p.y), p) for p in one.points]) for one in shown]
    below = any(math.log10(height) < y.low for height in heights)
    body = drawn("curves", bands, curves, below, x_label, y_label)
    return drawn("chart", title, x_label, y_label, x.ticks(), y.ticks(), body)


def _band(series: Series, x: LogScale, y: LogScale) -> str:
    """The outline of what lies within the intervals; empty where fewer than two points have one."""
    known = [
        (x(p.x), p.low, p.high)
        for p in series.points
        if p.low is not None and p.high is not None and p.low > 0
    ]
    upper = [f"{px:.1f} {y(high):.1f}" for px, _, high in known]
    lower = [f"{px:.1f} {y(low):.1f}" for px, low, _ in reversed(known)]
    return "L".join(upper + lower) if len(known) > 1 else ""


def backend_keys(samples: Sequence[KernelSamples]) -> dict[tuple[str, str], Key]:
    """A colour for each backend and a marker for each mode, by (backend, mode)."""
    backends = sorted({one.backend for one in samples})
    return {
        (backend, mode): Key(place % COLOURS, marker, "")
        for place, backend in enumerate(backends)
        for mode, marker in zip(MODES, MARKERS, strict=False)
    }


def roofline(
    title: str, samples: Sequence[KernelSamples], keys: Mapping[tuple[str, str], Key]
) -> Markup | None:
    """The chart of ``samples`` of one machine; None where none can be drawn.

    A roof is bandwidth times operations per byte up to the speed of arithmetic, one for each part
    of the memory that the samples were held against, each at its fastest: what lies on it moves
    each byte once, at that speed.
    """
    placed = [
        (one, one.operations / one.bytes_fused, one.operations / min(one.rounds))
        for one in samples
        if one.bytes_fused > 0 and one.operations > 0 and min(one.rounds) > 0
    ]
    x = log_scale((intensity for _, intensity, _ in placed), LEFT, RIGHT, room=0.12, least=0.5)
    if x is None:
        return None
    roofs = _roofs([one for one, _, _ in placed], x)
    # The whole roofs are on the axes, or their ends would be bent onto them.
    logs = [math.log10(rate) for _, _, rate in placed]
    logs += [speed for _, line in roofs for _, speed in line]
    y = span(logs, BOTTOM, TOP, room=0.04, least=0.5)
    points = [
        (
            keys[one.backend, one.mode],
            x(intensity),
            y(rate),
            f"{one.case} {one.mode}, {one.backend}: {number_text(rate / 1e9)} Gop/s, "
            + _nearness(one),
        )
        for one, intensity, rate in placed
    ]
    lines = [
        (name, y.at(line[0][1]) - 4, [f"{x.at(at):.1f} {y.at(speed):.1f}" for at, speed in line])
        for name, line in roofs
    ]
    return drawn(
        "chart",
        title,
        "useful operations per byte that must move",
        "useful operations per second",
        x.ticks(),
        y.ticks(),
        drawn("roofline", lines, points),
    )


def _nearness(sample: KernelSamples) -> str:
    if sample.roofline is None:
        return "held against a large copy alone (old roofline)"
    return f"{percent_text(sample.roofline.fraction, 2)} of {sample.roofline.binding}"


def _roofs(
    samples: Sequence[KernelSamples], x: LogScale
) -> list[tuple[str, list[tuple[float, float]]]]:
    """The name of each roof with its corners, decimal logarithms of operations a byte and a
    second, over the whole axis ``x``."""
    rates: dict[str, float] = {}
    for one in samples:
        seen = (
            [("a large copy (old roofline)", one.bandwidth)]
            if one.roofline is None
            else [(each.name, each.rate) for each in one.roofline.bounds]
        )
        for name, rate in seen:
            if rate > 0:
                rates[name] = max(rate, rates.get(name, 0.0))
    arithmetic = rates.pop(ARITHMETIC, math.inf)
    most = math.log10(arithmetic)
    roofs = []
    for name, rate in sorted(rates.items(), key=lambda each: -each[1]):
        speed = math.log10(rate)
        corner = min(max(most - speed, x.low), x.high)
        ends = dict.fromkeys((x.low, corner, x.high))
        text = f"{name} {number_text(rate / 1e9)} GB/s"
        roofs.append((text, [(end, min(speed + end, most)) for end in ends]))
    return roofs


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
    return drawn("axis", scale.ticks(5))


def bar(quantity: Quantity, scale: LogScale, *, lead: str) -> Markup:
    """``quantity`` as a dot on its interval; an open end and a bound run to an arrow at the axis'
    end.

    ``lead`` (``below``, ``above`` or empty) colours it by the side of the tie on which the interval
    decides.
    """
    value, low, high = quantity.value, quantity.low, quantity.high
    bound, whisker, dot = "", "", None
    if value is not None and value > 0:
        at = scale(value)
        if quantity.censored is not None:  # the true value lies beyond the bound
            edge, tip = {"above": (BAR_RIGHT, -6), "below": (BAR_LEFT, 6)}[quantity.censored]
            bound = f"M{at:.1f} 5V17M{at:.1f} {BAR_MIDDLE}H{edge}m{tip} -4l{-tip} 4l{tip} 4"
        else:
            dot = at
            if low is not None or high is not None:
                start = scale(low) if low is not None and low > 0 else float(BAR_LEFT)
                end = scale(high) if high is not None else float(BAR_RIGHT)
                whisker = f"M{start:.1f} {BAR_MIDDLE}H{end:.1f}"
                for known, place, edge, tip in (
                    (low, start, BAR_LEFT, 6),
                    (high, end, BAR_RIGHT, -6),
                ):
                    arrow = f"M{edge + tip} 7L{edge} {BAR_MIDDLE}L{edge + tip} 15"
                    whisker += arrow if known is None else f"M{place:.1f} 7V15"
    return drawn("bar", lead, quantity_text(quantity), scale(1.0), bound, whisker, dot)
