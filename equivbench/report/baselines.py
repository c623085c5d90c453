"""Tables of what makes a share readable: each arm against the baselines, and the arms' shares at
the same loss."""

from __future__ import annotations

from collections.abc import Sequence

from equivbench.gap.matched import LossLevel, MatchedShares, ShareReading
from equivbench.report.sweeps import quantity_text
from equivbench.report.text import printable

STANDING_COLUMNS = ("arm", "loss", "of zero", "of linear", "explained", "share at the end", "seeds")


def standing_rows(readable: MatchedShares) -> list[list[str]]:
    """Rows of :data:`STANDING_COLUMNS`: a row an arm, and one for each baseline."""
    rows = []
    for arm, standing in readable.arms.items():
        measured = (
            standing.total,
            standing.of_zero,
            standing.of_linear,
            standing.explained,
            standing.share,
        )
        seeds = f"{standing.finished} of {standing.seeds}"
        rows.append([printable(arm), *map(quantity_text, measured), seeds])
    zero, linear = readable.zero, readable.linear
    losses = {"linear": linear, **readable.others, "zero": zero}
    for name, loss in losses.items():
        if loss is not None:
            of_zero, explained = (
                ("-", "-") if not zero else (f"{loss / zero:.4g}", f"{1 - loss / zero:.4g}")
            )
            of_linear = f"{loss / linear:.4g}" if linear else "-"
            rows.append(
                [
                    f"{printable(name)} baseline",
                    f"{loss:.4g}",
                    of_zero,
                    of_linear,
                    explained,
                    "",
                    "",
                ]
            )
    return rows


def level_columns(readable: MatchedShares) -> list[str]:
    """Headers of :func:`level_rows`: an arm a column."""
    return [
        "share at",
        "loss",
        *(printable(arm) for arm in (readable.levels[0].arms if readable.levels else {})),
    ]


def level_rows(levels: Sequence[LossLevel]) -> list[list[str]]:
    """A row for each common loss."""
    return [
        [level.name, f"{level.loss:.4g}", *map(reading_text, level.arms.values())]
        for level in levels
    ]


def reading_text(reading: ShareReading) -> str:
    """The share with its interval, or why there is none."""
    if reading.share.value is not None:
        return quantity_text(reading.share)
    if reading.reached == 0:
        return "not reached"
    if reading.reached < reading.seeds:
        return f"reached by {reading.reached} of {reading.seeds} seeds only"
    if reading.began_below == reading.seeds:
        return "passed before the first evaluation"
    return f"passed before the first evaluation by {reading.began_below} of {reading.seeds} seeds"
