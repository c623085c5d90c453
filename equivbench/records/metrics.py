"""Every quantity that a record, table or gate shows, declared once: unit, direction, range and how
it aggregates."""

from __future__ import annotations

import math
from dataclasses import dataclass
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
    summary: str
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

    def better(self, first: float, second: float) -> bool:
        """Whether ``first`` is strictly better than ``second``."""
        if self.direction == "neither":
            raise ValueError(f"{self.name} has no better direction")
        return first < second if self.direction == "lower" else first > second


_DECLARED = (
    # The plug-in total can never be negative; its unbiased parts can, by chance, so they are
    # unbounded below.
    Metric(
        "total",
        "task unit",
        "lower",
        "geometric_mean",
        "the task's board metric on the test set",
        0.0,
    ),
    Metric("twirled", "task unit", "lower", "mean", "error of the rotation-averaged prediction"),
    Metric(
        "equivariance",
        "task unit",
        "lower",
        "mean",
        "mean squared deviation from the averaged prediction",
    ),
    Metric("share", "1", "lower", "mean", "equivariance error as a share of the total", -1.0, 2.0),
    Metric(
        "floor",
        "1",
        "neither",
        "max",
        "share that rounding of rotated inputs (on grids, interpolation) alone causes",
        0.0,
    ),
    Metric("explained", "1", "higher", "mean", "1 - total / baseline", high=1.0),
    Metric(
        "of_linear",
        "1",
        "lower",
        "mean",
        "total over that of the best linear predictor on the same test set",
        0.0,
    ),
    Metric("objective", "task unit", "lower", "mean", "training objective on the test set"),
    Metric(
        "samples_per_second",
        "samples/s",
        "higher",
        "mean",
        "training throughput, data included",
        0.0,
        low_open=True,
    ),
    Metric(
        "inference_samples_per_second",
        "samples/s",
        "higher",
        "mean",
        "forward passes",
        0.0,
        low_open=True,
    ),
    Metric(
        "step_seconds",
        "s",
        "lower",
        "mean",
        "seconds a training step, data included",
        0.0,
        low_open=True,
    ),
    Metric(
        "seconds",
        "s",
        "lower",
        "mean",
        "seconds a call of a kernel, a step or a command",
        0.0,
        low_open=True,
    ),
    Metric("compile_seconds", "s", "lower", "mean", "compilation against an empty cache", 0.0),
    Metric("epochs", "1", "neither", "mean", "passes over the training split", 0.0),
    Metric("peak_bytes", "B", "lower", "max", "peak memory of the run", 0.0, low_open=True),
    Metric("energy_joules", "J", "lower", "sum", "device energy over the run", 0.0, low_open=True),
    Metric(
        "throughput_ratio",
        "1",
        "neither",
        "geometric_mean",
        "equivariant over augmented seconds a sample",
        0.0,
        low_open=True,
    ),
    Metric(
        "loss_ratio",
        "1",
        "neither",
        "geometric_mean",
        "equivariant over augmented board metric",
        0.0,
        low_open=True,
    ),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _DECLARED}
