"""What an analysis of gradients is asked for, and its record: a line of ``gradients.jsonl`` beside
the run records of a machine. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import MISSING, dataclass
from typing import Any, ClassVar, Literal

import msgspec

from equivbench.errors import UsageError
from equivbench.records.line_files import LineFile
from equivbench.records.rules import Rule
from equivbench.records.schema import Number
from equivbench.request import option
from equivbench.studies.record import (
    ANALYSIS_RULES,
    ANALYSIS_SCHEMA_VERSION,
    AnalysisRequest,
    Estimate,
    RunAnalysis,
)


@dataclass(frozen=True, kw_only=True)
class GradientsRequest(AnalysisRequest):
    """What ``equivbench analyze gradients`` is asked for."""

    program: ClassVar[tuple[str, ...]] = ("analyze", "gradients")

    runs: tuple[str, ...] = option(
        MISSING,
        "Runs that were trained with --snapshots, each as its record, id or checkpoint.",
        flag=None,
        metavar="RUN",
    )
    chunks: int = option(
        8,
        "Number of independent parts that the samples are dealt into; gradients are multiplied "
        "between parts.",
    )
    # Few rotations and many samples: two draws already make both parts of the error unbiased.
    rotations: int = option(2, "Number of random rotations of each sample.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chunks < 2:
            raise UsageError(
                "a norm without bias is a product of independent chunks: "
                f"--chunks takes at least 2, not {self.chunks}"
            )


class GradientPoint(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Norms of the gradients by all trained parameters at one snapshot, each the root of an
    unbiased estimate of its square."""

    step: int
    samples: int
    train_seconds: float
    total: Number
    """Board metric of these weights at this step, by the run's own evaluation."""
    share: Number
    """Of the same evaluation."""
    twirled_norm: Estimate
    equivariance_norm: Estimate
    ratio: Estimate
    """``equivariance_norm / twirled_norm``."""
    deviation: Number
    """Relative squared distance of the symmetry-breaking parameters from their symmetric
    projection; null without one."""


class Gradients(RunAnalysis, kw_only=True, forbid_unknown_fields=True):
    """The gradients of the parts of the error along one run."""

    kind: Literal["gradients"] = "gradients"
    chunks: int
    """Independent parts of the samples whose gradients are multiplied."""
    points: list[GradientPoint]
    correlations: dict[str, Estimate]
    """With the share, over the points, in logarithms: ``ratio``, ``ratio detrended``,
    ``deviation``, ``deviation detrended``.

    Detrended: between the residuals of both after a quadratic in log step
    (:mod:`equivbench.studies.gradients.statistics`).
    """


def _steps(line: Gradients) -> Iterator[str]:
    """The points are at ascending steps."""
    steps = [point.step for point in line.points]
    if not steps or steps != sorted(set(steps)) or steps[0] < 0:
        yield f"the points are not at ascending steps: {steps[:10]}"


def _norms(line: Gradients) -> Iterator[str]:
    """Norms, losses and distances are not below zero."""
    for index, point in enumerate(line.points):
        for name in ("twirled_norm", "equivariance_norm", "ratio", "total", "deviation"):
            value = getattr(point, name)
            value = value.value if isinstance(value, Estimate) else value
            if value is not None and value < 0:
                yield f"points.{index}.{name} is {value:g}, below zero"


def _ratios(line: Gradients) -> Iterator[str]:
    """The ratio is that of the two norms."""
    for index, point in enumerate(line.points):
        top, bottom = point.equivariance_norm.value, point.twirled_norm.value
        ratio = point.ratio.value
        if top is None or bottom is None or ratio is None:
            continue
        if not math.isclose(ratio * bottom, top, rel_tol=1e-6, abs_tol=1e-300):
            yield (
                f"points.{index}.ratio is {ratio:g}, the norms {top:g} and {bottom:g} make another"
            )


def _correlations(line: Gradients) -> Iterator[str]:
    """A correlation lies in [-1, 1]."""
    for name, estimate in line.correlations.items():
        value, low, high = estimate.value, estimate.low, estimate.high
        if any(number is not None and not -1 <= number <= 1 for number in (value, low, high)):
            yield f"correlations.{name} is {value}, from {low} to {high}: outside [-1, 1]"


GRADIENT_RULES: tuple[Rule[Any], ...] = (
    *ANALYSIS_RULES,
    _steps,
    _norms,
    _ratios,
    _correlations,
)
GRADIENTS = LineFile(
    "gradients.jsonl", Gradients, "gradient analysis", ANALYSIS_SCHEMA_VERSION, GRADIENT_RULES
)
