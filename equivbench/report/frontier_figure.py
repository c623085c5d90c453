"""The figure of a frontier: the loss of the best size of both arms against the budget, the laws
through them, and where they cross."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from equivbench.gap.frontier import PairFrontier
from equivbench.report.figures import (
    COLOURS,
    empty_figure,
    in_unit,
    part_text,
    plain_ticks,
    two_lines,
)
from equivbench.report.frontier import fitted_law, law_text
from equivbench.report.gaps import turn_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BEYOND = 4.0
"""How far the laws are drawn beyond the largest budget, at least."""


def draw_frontier(found: PairFrontier, *, unit: str = "") -> Figure:
    """Draw the losses with their intervals as points, the laws as lines, and the crossing as a line
    across with its interval shaded; what lies beyond the budgets that were measured is dashed or
    dotted."""
    import numpy as np

    figure = empty_figure(7.5, 4.6)
    axes = figure.add_subplot()
    crossing = found.crossing
    last = found.seconds[-1]
    end = _BEYOND * last
    if crossing is not None and crossing.seconds.value is not None:
        end = max(end, 1.5 * crossing.seconds.value)
    for arm, frontier in found.arms.items():
        values, bars = _points([(each.value, each.low, each.high) for each in frontier.losses])
        label = f"{arm}: {law_text(frontier.law.exponent)}"
        axes.errorbar(
            found.seconds, values, yerr=bars, fmt="o", markersize=4, capsize=2, color=COLOURS[arm]
        )
        law = fitted_law(frontier)
        if law is None:
            continue
        for begin, until, style in ((found.seconds[0], last, "-"), (last, end, "--")):
            grid = np.linspace(np.log(begin), np.log(until), 60)
            shown = label if style == "-" else None
            axes.plot(
                np.exp(grid), np.exp(law.log_loss(grid)), style, color=COLOURS[arm], label=shown
            )
    if crossing is not None and crossing.seconds.value is not None:
        axes.axvline(
            crossing.seconds.value,
            color="0.4",
            linewidth=1.0,
            linestyle=":" if crossing.extrapolated else "-",
            label=f"the laws cross at {turn_text(crossing.seconds)}"
            + ", if they go on to hold" * crossing.extrapolated,
        )
        low, high = crossing.seconds.low, crossing.seconds.high
        if low is not None or high is not None:
            # An open end is as far as the figure goes.
            first = found.seconds[0]
            axes.axvspan(max(low or first, first), min(high or end, end), color="0.5", alpha=0.15)
    axes.set(xscale="log", yscale="log", xlabel="budget [s]", ylabel=in_unit("test loss", unit))
    head = f"{found.task}/{found.pair}, {found.preset}, {found.dataset}, sizes "
    head += ", ".join(found.tried)
    samples = part_text(found.on_whole_set)
    axes.set_title(two_lines(head, found.variant, samples), loc="left", fontsize="medium")
    plain_ticks(axes.xaxis)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _points(
    losses: Sequence[tuple[float | None, float | None, float | None]],
) -> tuple[list[float], list[list[float]]]:
    """The losses, and how far their intervals reach down and up; an open end has no bar."""
    values = [value or 0.0 for value, _, _ in losses]
    down = [0.0 if low is None or value is None else value - low for value, low, _ in losses]
    up = [0.0 if high is None or value is None else high - value for value, _, high in losses]
    return values, [down, up]
