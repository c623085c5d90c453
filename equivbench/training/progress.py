"""How far a run is, as it is shown while it trains; imports no torch."""

from __future__ import annotations

import msgspec


class Progress(msgspec.Struct, tag="progress", frozen=True):
    """How far one arm's training is. ``spent`` and ``limit`` are in the budget's own unit."""

    step: int
    spent: float
    limit: float
    finished: bool
    """The budget is spent, or the arm diverged."""
    samples: int = 0
    diverged: str | None = None
    """Why the arm diverged, if it did."""
    loss: float | None = None
    """Training objective, averaged over recent steps."""
    total: float | None = None
    """Board metric of the last evaluation; ``share`` and ``explained`` belong to it."""
    share: float | None = None
    explained: float | None = None
    samples_per_second: float | None = None
    seconds_left: float | None = None
    """Seconds of training and data at the speed so far; None before the first step."""
