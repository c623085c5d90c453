"""What a change must exceed: 5%, or what `--fail-on METRIC:PERCENT` says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from equivbench.errors import UsageError, unknown_name
from equivbench.records.metrics import METRICS

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
                    f"--fail-on {text!r}: {number!r} is not a percentage above 0; write for one seconds:5"
                )
            named[metric] = percent / 100
        return cls(named)
