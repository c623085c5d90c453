"""Tables of what the gradients along a run come to, and of how they go with the share."""

from __future__ import annotations

from collections.abc import Sequence

from equivbench.gap.intervals import Quantity
from equivbench.report.gaps import show
from equivbench.report.text import printable
from equivbench.studies.gradients.record import GradientPoint, Gradients
from equivbench.studies.gradients.trends import Pooled
from equivbench.studies.record import Estimate

COLUMNS = (
    "step",
    "budget s",
    "loss",
    "share",
    "|grad M|",
    "|grad V|",
    "|grad V| / |grad M|",
    "deviation",
    "deviation / share",
)
"""M: twirled error, V: equivariance error."""
CORRELATION_COLUMNS = ("log share with log", "correlation", "with the trend taken out", "runs")
_QUANTITIES = {"ratio": "gradient ratio", "deviation": "deviation of parameters"}


def gradient_rows(analysis: Gradients) -> list[list[str]]:
    """A row of :data:`COLUMNS` for each snapshot."""
    return [_row(point) for point in analysis.points]


def correlation_rows(pooled: Pooled) -> list[list[str]]:
    """Rows of :data:`CORRELATION_COLUMNS` for the runs of one kind; a quantity that no run has is
    left out."""
    rows = []
    for name, label in _QUANTITIES.items():
        raw, detrended = pooled.correlations[name], pooled.correlations[f"{name} detrended"]
        if raw.quantity.value is not None:
            rows.append(
                [
                    label,
                    show(raw.quantity, digits=2),
                    show(detrended.quantity, digits=2),
                    str(pooled.runs),
                ]
            )
    return rows


def notes(analysis: Gradients) -> list[str]:
    """What is missing and why, a line for each reason: ``ratio at 2 of 12 points: ...``."""
    places: dict[tuple[str, str], int] = {}
    for path, reason in analysis.reasons.items():
        if path.startswith("points."):
            key = (path.split(".", 2)[2], reason)
            places[key] = places.get(key, 0) + 1
    count = len(analysis.points)
    return [
        printable(f"{name.replace('_', ' ')} at {n} of {count} points: {reason}")
        for (name, reason), n in places.items()
    ]


def correlation_notes(pooled: Sequence[Pooled]) -> list[str]:
    """Why correlations or their intervals are missing."""
    return [
        printable(f"{kind(each)}, {name}: {judged.reason}")
        for each in pooled
        for name, judged in each.correlations.items()
        # A quantity that the model does not have is a note of the points already.
        if judged.reason is not None
        and each.correlations[name.removesuffix(" detrended")].quantity.value is not None
    ]


def kind(pooled: Pooled) -> str:
    """Which runs were pooled, in words."""
    options = [f"{name} {value}" for name, value in sorted(pooled.variant.items())]
    return printable(
        ", ".join(
            [
                f"{pooled.task}/{pooled.pair} {pooled.arm}",
                pooled.preset,
                *options,
                pooled.machine_key,
            ]
        )
    )


def estimate_text(estimate: Estimate) -> str:
    """``1.8 (1.5 to 2.3)``, or ``-``."""
    return show(Quantity(estimate.value, estimate.low, estimate.high))


def _row(point: GradientPoint) -> list[str]:
    relative = (
        point.deviation / point.share if point.deviation is not None and point.share else None
    )
    return [
        str(point.step),
        f"{point.train_seconds:.3g}",
        _number(point.total),
        _number(point.share),
        show(Quantity(point.twirled_norm.value)),
        show(Quantity(point.equivariance_norm.value)),
        estimate_text(point.ratio),
        _number(point.deviation),
        _number(relative),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
