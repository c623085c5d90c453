"""What the gate compares: samples of one metric of one thing, one for each round or seed; and their
form on disk, a JSON line a benchmark.

Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from equivbench.records.metrics import Metric
from equivbench.records.schema import Environment, Git

Repeat = Literal["round", "seed"]
"""What repeats: rounds carry timing noise, seeds the noise of training."""


@dataclass(frozen=True)
class Samples:
    """``values`` of ``metric``, by round or seed, of the thing called ``name``, under
    ``context``."""

    name: str
    """Identity: what a baseline and a candidate share, such as ``convolution-c64-l2 backward
    fused``."""
    metric: Metric
    unit: Repeat
    values: Mapping[int, float]
    context: Mapping[str, str]
    """What must be equal for a comparison: machine, preset, budget, data."""
    source: str
    """The file it was read from, for messages."""
    beside: Mapping[str, str] = field(default_factory=dict)
    """What a verdict names where it differs: the versions of torch and Python."""
    blocks: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    """All samples of a round, of which its value is the least."""
    measurements: tuple[str, ...] = ()
    """What tells the measurements apart whose rounds these are, so that a copy is noticed."""
    session: str | None = None
    """Rounds with one session were taken next to each other, so round i of both sides is a
    pair."""
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
        told = [(index, value) for index, block in self.blocks.items() for value in block]
        for index, value in sorted([*self.values.items(), *told]):
            problem = self.metric.problem(value)
            if problem is None and max(value, self.clip) <= 0:
                problem = f"{self.metric.name} is {value:g}, of which no ratio can be taken"
            if problem is not None:
                return f"{problem} ({self.unit} {index})"
        return None

    def level(self, index: int) -> float:
        """Logarithm of the value of one round or seed, clipped from below."""
        return math.log(max(self.values[index], self.clip))


def steps(baseline: Samples, candidate: Samples) -> list[float] | None:
    """log(candidate / baseline) of each seed, or of each round where round i of both sides were
    neighbours; None: no pairs.

    The value of a round is its fastest sample: what else a machine does only ever adds time. From
    round to round the ratio of the fastest spread by 3.1% (median of 100 benchmarks, two shared
    cores, the outer tenths drawn in), that of medians by 5.1%, the median of the ratios of
    neighbouring samples by 4.8%.
    """
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

    measurements: tuple[Samples, ...]
    unreadable: tuple[Unreadable, ...] = ()


GATE_SCHEMA_VERSION = 2


class GateSamples(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One benchmark of one revision: entry i of ``rounds`` comes from the i-th fresh process of
    that side, and entry j of it was taken next to entry j of the other side's."""

    schema_version: int = GATE_SCHEMA_VERSION
    created: str
    """UTC, ISO 8601."""
    command: str
    session: str
    """Names the interleaved measurement: rounds of two sides with one session were taken next to
    each other."""
    revision: str
    """As the user wrote it; ``git.commit`` is what it stood for."""
    benchmark: str
    version: str
    """Of the benchmark itself: samples of two versions are not comparable."""
    control: bool
    rounds: list[list[float]]
    """Seconds a call, in samples of 10 ms or more."""
    problem: str | None = None
    """Why it could not be measured; ``rounds`` is then short or empty."""
    environment: Environment
    git: Git
