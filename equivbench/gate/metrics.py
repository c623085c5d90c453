"""Which metrics of a run the gate compares, how each becomes one number a seed, and the change that
counts: 5%, or what ``--fail-on METRIC:PERCENT`` says.

To gate another metric, declare it in :mod:`equivbench.records.metrics` and add its entry to
:data:`RUN_METRICS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from equivbench.errors import UsageError, unknown_name
from equivbench.records.metrics import METRICS, Metric
from equivbench.records.schema import RunRecord


@dataclass(frozen=True)
class RunMetric:
    """``value(record)`` in the metric's unit, or None where it was not measured."""

    metric: Metric
    value: Callable[[RunRecord], float | None]
    by_default: bool = False
    """Gated without being named: what fixed steps make deterministic. Timings of a run come from
    one process and are gated only when `--fail-on` asks."""
    timing: bool = False
    by_group: bool = False
    """Whether it depends on the group that the test rotated by."""
    clip: float = float("-inf")
    resolution: float = 0.0


def _total(record: RunRecord) -> float | None:
    return None if record.final is None else record.final.total


def _share(record: RunRecord) -> float | None:
    return None if record.final is None else record.final.share


def _step(record: RunRecord) -> float | None:
    steps = record.throughput.step_seconds
    return None if steps is None else steps.p10


RUN_METRICS: tuple[RunMetric, ...] = (
    RunMetric(METRICS["total"], _total, by_default=True),
    # An equivariance error under a thousandth of the total is rounding, or the noise of the
    # rotations that were drawn.
    RunMetric(METRICS["share"], _share, by_default=True, by_group=True, clip=1e-3, resolution=1e-3),
    RunMetric(METRICS["step_seconds"], _step, timing=True),
    RunMetric(
        METRICS["samples_per_second"],
        lambda record: record.throughput.samples_per_second,
        timing=True,
    ),
    RunMetric(
        METRICS["inference_samples_per_second"],
        lambda record: record.inference.samples_per_second,
        timing=True,
    ),
    RunMetric(METRICS["peak_bytes"], lambda record: record.memory.peak_bytes, timing=True),
)


GATED: tuple[str, ...] = ("seconds", *(each.metric.name for each in RUN_METRICS))
"""Metrics that `--fail-on` may name; ``seconds`` is what kernels and the gate's own benchmarks
take."""


DEFAULT = 0.05


@dataclass(frozen=True)
class Thresholds:
    """Relative thresholds by metric; a metric that is named is also gated where it is not by
    default."""

    named: Mapping[str, float] = field(default_factory=dict)

    def of(self, metric: str) -> float:
        """The threshold of ``metric``, as a fraction."""
        return self.named.get(metric, DEFAULT)

    @classmethod
    def parse(cls, requests: Sequence[str], gated: Sequence[str]) -> Thresholds:
        """Thresholds of ``total:2`` and the like; raises ``UsageError`` for anything else.

        ``gated`` are the metrics that the gate can compare.
        """
        named = {}
        for text in requests:
            metric, colon, number = text.partition(":")
            if not colon:
                raise UsageError(
                    f"cannot read --fail-on {text!r}; write METRIC:PERCENT, such as seconds:5"
                )
            if metric not in gated:
                hint = f"; {metric} is shown but not gated" if metric in METRICS else ""
                raise UsageError(f"{unknown_name('metric of the gate', metric, gated)}{hint}")
            try:
                percent = float(number.removesuffix("%"))
            except ValueError:
                percent = math.nan
            if not 0 < percent < math.inf:
                raise UsageError(
                    f"--fail-on {text!r}: {number!r} is not a percentage above 0; "
                    "write for one seconds:5"
                )
            named[metric] = percent / 100
        return cls(named)
