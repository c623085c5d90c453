"""The common form of what the gate compares: one metric of one thing, once for each round or seed.
Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from equivbench.records.metrics import Metric

Unit = Literal["round", "seed"]
"""What repeats: rounds carry timing noise, seeds the noise of training."""


@dataclass(frozen=True)
class Measurement:
    """``values`` of ``metric``, by round or seed, of the thing called ``name``, under
    ``context``."""

    name: str
    """Identity: what a baseline and a candidate share, such as ``convolution-c64-l2 backward
    fused``."""
    metric: Metric
    unit: Unit
    values: Mapping[int, float]
    context: Mapping[str, str]
    """What must be equal for a comparison: machine, preset, budget, data."""
    source: str
    """The file it was read from, for messages."""
    session: str | None = None
    """Rounds with one session are neighbours in time, so round i of both sides is a pair."""
    deterministic: bool = False
    """The same code gives the same value to the bit, so that one seed already says something."""
    control: bool = False
    dirty: bool | None = None
    clip: float = -math.inf
    """Values below count as this: what lies under it is rounding or sampling noise."""
    resolution: float = 0.0
    """A difference below this, in the metric's unit, does not matter whatever its ratio."""
    spread: float = 0.0
    """Relative spread of the whole side that its rounds do not show, where they all come from one
    process; 0: they do not."""
    problem: str | None = None
    """Why the measurement failed as a whole (a diverged run), one clause."""
    disturbed: str | None = None
    """Why the values say little although they are valid (a throttled GPU), one clause."""

    @property
    def key(self) -> tuple[str, str]:
        """(name, metric): unique within one side."""
        return self.name, self.metric.name

    def defect(self) -> str | None:
        """Why these values cannot be compared: none at all, not finite, outside the metric's range,
        or no ratio of them."""
        if self.problem is not None:
            return self.problem
        if not self.values:
            return f"no {self.unit} was measured"
        for index, value in sorted(self.values.items()):
            problem = self.metric.problem(value)
            if problem is None and max(value, self.clip) <= 0:
                problem = f"{self.metric.name} is {value:g}, of which no ratio can be taken"
            if problem is not None:
                return f"{problem} ({self.unit} {index})"
        return None

    def level(self, index: int) -> float:
        """Logarithm of the value of one round or seed, clipped from below."""
        return math.log(max(self.values[index], self.clip))


def steps(baseline: Measurement, candidate: Measurement) -> list[float] | None:
    """log(candidate / baseline) of each seed, or of each round where round i of both sides were
    neighbours; None: no pairs."""
    if baseline.unit == "round" and (
        baseline.session is None or baseline.session != candidate.session
    ):
        return None
    return [
        candidate.level(index) - baseline.level(index)
        for index in sorted(set(baseline.values) & set(candidate.values))
    ]


@dataclass(frozen=True)
class Unreadable:
    """A file or folder that holds no measurement: ``reason`` is one sentence."""

    source: str
    reason: str


@dataclass(frozen=True)
class Side:
    """All that was read for the baseline or the candidate."""

    measurements: tuple[Measurement, ...]
    unreadable: tuple[Unreadable, ...] = ()
