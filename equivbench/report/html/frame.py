"""The frame of a chart as inline SVG: grid, ticks and axis titles. Colours come from the page's
style sheet (dark mode)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from equivbench.report.html.scale import LogScale

WIDTH, HEIGHT = 440, 290
LEFT, RIGHT, TOP, BOTTOM = 58, 428, 26, 244
COLOURS = 8
"""Series colours in the style sheet: ``c0`` to ``c7``."""
MARKERS = ("disc", "square", "triangle", "diamond", "cross")


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
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<text class="axis-title" x="2" y="12">{escape(y_label)}</text>',
        f'<text class="axis-title" x="{RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(x_label)}</text>',
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
    return f'<path class="mark c{key.colour} {key.marker}" d="{shape}"><title>{escape(title)}</title></path>'


def swatch(key: Key) -> Markup:
    """The sample of a series in a legend, without meaning of its own to a screen reader; a marker
    alone if it has no line."""
    line = f'<path class="line c{key.colour} {key.dashes}" d="M1 6H33"/>' if key.dashes else ""
    left, width = (0, 34) if line else (11, 12)
    return Markup(
        f'<svg class="swatch" viewBox="{left} 0 {width} 12" width="{width}" height="12" aria-hidden="true">{line}'
        f'<path class="mark c{key.colour} {key.marker}" d="{_outline(key.marker, 17, 6, 3.2)}"/></svg>'
    )


def _outline(name: str, x: float, y: float, r: float) -> str:
    if name == "disc":
        return f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z"
    if name == "square":
        return f"M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}z"
    if name == "triangle":
        return f"M{x:.1f} {y - 1.2 * r:.1f}l{1.2 * r:.2f} {2.1 * r:.2f}h{-2.4 * r:.2f}z"
    if name == "diamond":
        return f"M{x:.1f} {y - 1.3 * r:.1f}l{1.3 * r:.2f} {1.3 * r:.2f}l{-1.3 * r:.2f} {1.3 * r:.2f}l{-1.3 * r:.2f} {-1.3 * r:.2f}z"
    return f"M{x - r:.1f} {y - r:.1f}l{2 * r} {2 * r}m{-2 * r} 0l{2 * r} {-2 * r}"
