"""The one word for each quantity, in progress lines and in tables alike, and what it means.

A table takes its columns from here and has :func:`legend` below its rows, so that a reader meets
one word for one thing and never two things under one word.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from equivbench.report.table import Column, Table

HOME = "https://github.com/equivbench/equivbench"
"""Where the project is found."""
LOSS = Column("loss", "number")
EXPLAINED = Column("explained", "percent")
SHARE = Column("share", "number", digits=2)
SHARE_RAW = Column("share_raw", "number", "raw", digits=2, spare=True)
SHARE_EMA = Column("share_ema", "number", "EMA", digits=2, spare=True)
FLOOR = Column("floor", "number", digits=2)
SPEED = Column("samples/s", "number")
COMPILE = Column("compile", "seconds", spare=True)
OVER_BEST_UNTRAINED = Column("over best untrained", "number")

OBJECTIVE = "objective"
"""Only progress has it."""
MEANINGS = {
    OBJECTIVE: "what training makes small, over the last steps",
    "loss": "mean squared error on the test set",
    "explained": "1 - loss / that of a predictor that learned nothing",
    "share": "part of the loss that is a symmetry error",
    "raw": "share of the weights before the learning rate falls",
    "EMA": "share of their average",
    "floor": "the share that rounding alone would show",
    "twirled": "the loss of the prediction averaged over all rotations",
    "equivariance": "loss - twirled",
    "over best untrained": "loss / that of the best predictor without training",
    "samples/s": "training samples a second",
    "compile": "time outside the budget",
}
"""What each word means, for someone who has read nothing else."""


def legend(words: Iterable[str]) -> str:
    """What those of ``words`` mean that need an explanation: ``loss: ...; share: ...``."""
    named = dict.fromkeys(word for word in words if word in MEANINGS)
    return "; ".join(f"{word}: {MEANINGS[word]}" for word in named)


def with_legend(table: Table) -> Table:
    """``table`` with the legend of its headings below it."""
    shown = table.shown().columns
    said = legend(column.heading or column.name for column in shown)
    return replace(table, notes=[*table.notes, said])
