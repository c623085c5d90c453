"""Which metrics of a run the gate compares, which field of its record each is, and the change that
counts: 5%, or what ``--fail-on METRIC:PERCENT`` says.

To gate another metric, declare it in :mod:`equivbench.records.metrics` and add its entry to
:data:`RUN_METRICS`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from equivbench.errors import UsageError, unknown_name
from equivbench.records.metrics import METRICS
from equivbench.records.schema import RunRecord

RUN_METRICS = {
    "total": "final.total",
    "share": "final.share",
    "step_seconds": "throughput.step_seconds.p10",
    "samples_per_second": "throughput.samples_per_second",
    "inference_samples_per_second": "inference.samples_per_second",
    "peak_bytes": "memory.peak_bytes",
}
BY_DEFAULT = ("total", "share")
"""Gated without being named: what fixed steps make deterministic. Timings of a run come from one
process and are gated only when `--fail-on` asks."""
GATED = ("seconds", *RUN_METRICS)
"""Metrics that `--fail-on` may name; ``seconds`` is what kernels and the gate's own benchmarks
take."""
DEFAULT = 0.05


def value_of(record: RunRecord, metric: str) -> float | None:
    """One of :data:`RUN_METRICS` in its unit; None where it was not measured."""
    found: Any = record
    for name in RUN_METRICS[metric].split("."):
        found = None if found is None else getattr(found, name)
    return None if found is None else float(found)


def parse_thresholds(requests: Sequence[str]) -> dict[str, float]:
    """The relative thresholds of ``total:2`` and the like by metric; raises ``UsageError`` for
    anything else."""
    named = {}
    for text in requests:
        metric, colon, number = text.partition(":")
        if not colon:
            raise UsageError(
                f"cannot read --fail-on {text!r}; write METRIC:PERCENT, such as seconds:5"
            )
        if metric not in GATED:
            hint = f"; {metric} is shown but not gated" if metric in METRICS else ""
            raise UsageError(f"{unknown_name('metric of the gate', metric, GATED)}{hint}")
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
    return named
