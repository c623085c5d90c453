"""Where a run stands, as plain JSON data for progress bars."""

from __future__ import annotations

from typing import Any

from equivbench.training.budget import Budget
from equivbench.training.state import Facts

Progress = dict[str, Any]
"""step, samples, spent, limit, finished, loss, total, share, explained, samples_per_second,
seconds_left."""


def progress(
    facts: Facts, budget: Budget, spent: float, seconds: float, loss: float | None
) -> Progress:
    """The standing of a run that has ``spent`` of ``budget`` in ``seconds`` of train + data;
    unknown values are None."""
    test = facts.final
    fraction = spent / budget.limit
    return {
        "step": facts.step,
        "samples": facts.samples,
        "spent": spent,
        "limit": budget.limit,
        "finished": facts.finished,
        "loss": loss,
        "total": None if test is None else test.total,
        "share": None if test is None else test.share,
        "explained": None if test is None else test.explained,
        "samples_per_second": facts.samples / seconds if facts.samples and seconds > 0 else None,
        "seconds_left": max(0.0, seconds / fraction - seconds) if fraction > 0 else None,
    }
