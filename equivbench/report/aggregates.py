"""One number of a row from its seeds: what was measured, its mean as the metric declares it, its
interval, its digits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from equivbench.errors import FailedError
from equivbench.records.metrics import METRICS
from equivbench.records.schema import RunRecord

DIGITS = 5
"""Significant digits of a number on the board: beyond seed noise, and the same in every format."""
LEVEL = 0.95


def all_in(record: RunRecord) -> float | None:
    """Training samples a second with the compile seconds added to the time."""
    rate = record.throughput.samples_per_second
    if rate is None or rate <= 0 or record.samples <= 0:
        return None
    return record.samples / (record.samples / rate + record.clock.compile)


def of_linear(record: RunRecord) -> float | None:
    """The final total over that of the best linear predictor on the same test set."""
    linear = record.baselines.get("linear")
    if record.final is None or record.final.total is None or not linear:
        return None
    return record.final.total / linear


def final(name: str) -> Callable[[RunRecord], float | None]:
    """What reads ``name`` from a run's final evaluation."""
    return lambda run: None if run.final is None else getattr(run.final, name)


def measured(
    metric: str, runs: Sequence[RunRecord], value: Callable[[RunRecord], float | None]
) -> list[float]:
    """What ``runs`` measured; raises ``FailedError`` for a value that cannot be one of
    ``metric``."""
    found = []
    for run in runs:
        number = value(run)
        if number is None:
            continue
        problem = METRICS[metric].problem(number)
        if problem is not None:
            raise FailedError(
                f"record {run.run_id} of {run.task}/{run.pair} {run.arm}: {problem}; see `equivbench results validate`"
            )
        found.append(number)
    return found


def aggregate(metric: str, values: Sequence[float]) -> float | None:
    """The mean or the largest of ``values``, as ``metric`` declares, rounded; None without any."""
    if not values:
        return None
    return _rounded(
        max(values) if METRICS[metric].aggregate == "max" else math.fsum(values) / len(values)
    )


def log_interval(values: list[float]) -> tuple[float | None, float | None, float | None]:
    """Geometric mean of ``values`` with the Student interval of the mean logarithm; (mean, low,
    high)."""
    if not values:
        return None, None, None
    if min(values) <= 0:
        return 0.0, None, None
    logs = [math.log(value) for value in values]
    mean = math.fsum(logs) / len(logs)
    if len(logs) == 1:
        return _rounded(values[0]), None, None
    from scipy.special import stdtrit

    variance = math.fsum((value - mean) ** 2 for value in logs) / (len(logs) - 1)
    half = float(stdtrit(len(logs) - 1, 0.5 + LEVEL / 2)) * math.sqrt(variance / len(logs))
    return _rounded(math.exp(mean)), _rounded(_exp(mean - half)), _rounded(_exp(mean + half))


def _exp(value: float) -> float | None:
    """exp, or None where two wildly different seeds leave the interval unbounded in floating
    point."""
    return math.exp(value) if value < 700 else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")
