"""A ratio with its interval drawn in a table's cell, on one axis for the whole column so that the
rows can be compared."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

from equivbench.gap.intervals import Quantity
from equivbench.report.gaps import show
from equivbench.report.html.scale import LogScale, log_scale

WIDTH, HEIGHT = 150, 22
LEFT, RIGHT, MIDDLE = 6, 144, 11


def ratio_scale(quantities: Iterable[Quantity]) -> LogScale:
    """The axis that holds every estimate and every closed end of ``quantities``, and the tie at
    1."""
    ends = [end for one in quantities for end in (one.value, one.low, one.high) if end is not None]
    scale = log_scale([1.0, *ends], LEFT, RIGHT, room=0.08, least=0.5)
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
        f'<svg class="axis" viewBox="0 0 {WIDTH} 18" width="{WIDTH}" height="18" aria-hidden="true">'
        f'{names}<path class="frame" d="M{LEFT} 18H{RIGHT}{marks}"/></svg>'
    )


def bar(quantity: Quantity, scale: LogScale, *, lead: str) -> Markup:
    """``quantity`` as a dot on its interval; an open end and a bound run to an arrow at the axis'
    end.

    ``lead`` (``below``, ``above`` or empty) colours it by the side of the tie on which the interval
    decides.
    """
    tie = f'<path class="tie" d="M{scale(1.0):.1f} 1V{HEIGHT - 1}"/>'
    return Markup(
        f'<svg class="interval {escape(lead)}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        f' role="img" aria-label="{escape(show(quantity))}">{tie}{_drawn(quantity, scale)}</svg>'
    )


def _drawn(quantity: Quantity, scale: LogScale) -> str:
    value = quantity.value
    if value is None or value <= 0:
        return ""
    at = scale(value)
    if quantity.censored is not None:  # the true value lies beyond the bound
        edge, tip = {"above": (RIGHT, -6), "below": (LEFT, 6)}[quantity.censored]
        return f'<path class="bound" d="M{at:.1f} 5V17M{at:.1f} {MIDDLE}H{edge}m{tip} -4l{-tip} 4l{tip} 4"/>'
    low, high = quantity.low, quantity.high
    if low is None and high is None:
        return f'<circle class="dot" cx="{at:.1f}" cy="{MIDDLE}" r="4"/>'
    start = scale(low) if low is not None and low > 0 else float(LEFT)
    end = scale(high) if high is not None else float(RIGHT)
    caps = (
        f"M{start:.1f} 7V15" if low is not None else f"M{LEFT + 6} 7L{LEFT} {MIDDLE}L{LEFT + 6} 15"
    )
    caps += (
        f"M{end:.1f} 7V15"
        if high is not None
        else f"M{RIGHT - 6} 7L{RIGHT} {MIDDLE}L{RIGHT - 6} 15"
    )
    return (
        f'<path class="whisker" d="M{start:.1f} {MIDDLE}H{end:.1f}{caps}"/>'
        f'<circle class="dot" cx="{at:.1f}" cy="{MIDDLE}" r="4"/>'
    )
