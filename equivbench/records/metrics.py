"""Every quantity that a record, table or gate shows, declared once: unit, direction, range and how
it aggregates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

Direction = Literal["lower", "higher", "neither"]
Aggregate = Literal["mean", "geometric_mean", "sum", "last", "max"]


@dataclass(frozen=True)
class Metric:
    """One declared quantity.

    ``low`` and ``high`` bound the values that are possible at all (inclusive); a value outside
    them, or one that is not finite, is a failed measurement, never a result. ``aggregate`` says how
    values of several seeds combine.
    """

    name: str
    unit: str
    direction: Direction
    aggregate: Aggregate
    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False

    def problem(self, value: float | None) -> str | None:
        """Why ``value`` cannot be a measurement of this metric, or None if it can; None, what was
        not measured, is no measurement at all."""
        if value is None:
            return None
        if not math.isfinite(value):
            return f"{self.name} is {value}, which is not a number"
        if value < self.low or value > self.high or (self.low_open and value == self.low):
            left = "(" if self.low_open else "["
            bounds = f"{left}{self.low:g}, {self.high:g}]"
            return f"{self.name} is {value:g}, outside {bounds} {self.unit}".rstrip()
        return None


_positive = partial(Metric, low=0.0, low_open=True)
_DECLARED = (
    # The plug-in total can never be negative; its unbiased parts can, by chance, so they are
    # unbounded below.
    Metric("total", "task unit", "lower", "geometric_mean", low=0.0),
    Metric("twirled", "task unit", "lower", "mean"),
    Metric("equivariance", "task unit", "lower", "mean"),
    Metric("share", "1", "lower", "mean", low=-1.0, high=2.0),
    Metric("floor", "1", "neither", "max", low=0.0),
    Metric("explained", "1", "higher", "mean", high=1.0),
    Metric("over_best_untrained", "1", "lower", "mean", low=0.0),
    Metric("objective", "task unit", "lower", "mean"),
    _positive("samples_per_second", "samples/s", "higher", "mean"),
    _positive("inference_samples_per_second", "samples/s", "higher", "mean"),
    # Data included.
    _positive("step_seconds", "s", "lower", "mean"),
    _positive("scaling_efficiency", "1", "higher", "mean"),
    # A call of a kernel, a step or a command.
    _positive("seconds", "s", "lower", "mean"),
    Metric("compile_seconds", "s", "lower", "mean", low=0.0),
    Metric("epochs", "1", "neither", "mean", low=0.0),
    _positive("peak_bytes", "B", "lower", "max"),
    _positive("energy_joules", "J", "lower", "sum"),
    # Equivariant over augmented.
    _positive("throughput_ratio", "1", "neither", "geometric_mean"),
    _positive("loss_ratio", "1", "neither", "geometric_mean"),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _DECLARED}
