"""What an analysis of the loss landscape is asked for, and its record: a line of
``landscapes.jsonl`` beside the run records of a machine. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass
from typing import Any, ClassVar, Literal

import msgspec

from equivbench.records.line_files import LineFile
from equivbench.records.rules import Rule
from equivbench.records.schema import Number
from equivbench.request import option, write_number
from equivbench.studies.record import (
    ANALYSIS_RULES,
    ANALYSIS_SCHEMA_VERSION,
    AnalysisRequest,
    ErrorPart,
    Estimate,
    RunAnalysis,
)

ROUNDING = 1e-9
"""Relative: one division and one product in float64."""


@dataclass(frozen=True, kw_only=True)
class LandscapeRequest(AnalysisRequest):
    """What ``equivbench analyze landscape`` is asked for."""

    program: ClassVar[tuple[str, ...]] = ("analyze", "landscape")

    run: str = option(
        MISSING, "The run, as its record, id, checkpoint or snapshot.", flag=None, metavar="RUN"
    )
    layers: str = option(
        "*", "The parameters to vary, by name, with * and ? as in a shell: '*head*'."
    )
    along: ErrorPart = option(
        "total", "The part of the error whose Hessian's extreme eigenvectors span the slice."
    )
    step: int | None = option(
        None, "The step of a snapshot (run --snapshots). The default is the end of the run."
    )
    points: int | None = option(
        None,
        "Number of points along each axis of the slice. The default is 11, or 9 where the "
        "network is costly.",
    )
    radius: float | None = option(
        None, "Radius of the slice. The default is chosen from the curvature.", write=write_number
    )
    rotations: int | None = option(
        None,
        "Number of random rotations of each sample. The default is 4, or 2 where the "
        "network is costly.",
    )
    eigenvalues: int = option(1, "Number of eigenvalues at each end of the spectrum.")
    precision: Literal["float32", "float64"] = option(
        "float32", "Precision of the network. float64 takes three times as long."
    )
    no_repeat: bool = option(
        False, "Measure on one draw only. What of the slice is noise then stays unknown."
    )


class Curvature(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The Hessian of one part of the error at one point of parameter space, and the shape of that
    part in the slice.

    Curvatures are in the board metric's unit over the square of the parameters' distance. A part
    that is rounding alone (the equivariance error of an exactly equivariant model) has no Hessian
    to speak of: no eigenvalues, the rest null.
    """

    value: float
    """The part itself there."""
    largest: list[float]
    """Eigenvalues, the largest first."""
    smallest: list[float]
    """Eigenvalues, the smallest (most negative) first."""
    largest_again: list[float] = []
    """v^T H v of the eigenvectors of ``largest``, H being on other samples, noise and rotations;
    ``smallest_again`` likewise. An eigenvalue of a sampled matrix overshoots on average (an extreme
    over vectors that know the sample), this undershoots: the true one lies between. Where the two
    are far apart, the eigenvector is one of the draw. Empty without a repeat."""
    smallest_again: list[float] = []
    residual: Number
    """Largest |H v - lambda v| / |lambda_max| of the eigenpairs."""
    products: int
    """Hessian-vector products that eigenvalues and trace took."""
    trace: Estimate
    """Hutchinson's, with its Student interval over the probes."""
    effective_condition: Estimate
    """Largest eigenvalue over the mean one, trace / number of parameters; null where the trace is
    not positive, and open above where its interval reaches 0. The interval: ``largest_again`` over
    the trace's upper end to ``largest`` over its lower one. The plain ratio of extreme eigenvalues
    says nothing here: the smallest is negative or 0."""
    in_plane: list[float]
    """The two curvatures of the quadratic fitted to the slice, the larger first."""
    in_plane_condition: Number
    """Their ratio; null where one is not positive."""
    quadratic_r2: Number
    """Of the quadratic fitted to the slice: 1 is a perfect bowl; null where the slice is flat to
    rounding."""
    roughness: Number
    """Part of the variance that the quadratic leaves, by degrees of freedom, that a quartic leaves
    too: 1 for white noise, near 0 for a smooth shape that is no quadratic, whatever its size (which
    ``quadratic_r2`` tells)."""
    fresh_r2: Number
    """The same fit where every point of the slice draws its rotations, noise and samples anew, as
    in the published grids."""
    repeated: Number
    """Correlation of this slice with one of other samples, noise and rotations: what is landscape,
    not noise."""


class Landscape(RunAnalysis, kw_only=True, forbid_unknown_fields=True):
    """A two-dimensional slice of each part of the error around trained weights."""

    kind: Literal["landscape"] = "landscape"
    step: int
    layers: str
    """Pattern of the parameters that are varied; ``*`` is all."""
    parameters: int
    """How many numbers they hold."""
    precision: Literal["float64", "float32"]
    """Of the model's arithmetic in the analysis."""
    along: ErrorPart
    """Whose Hessian's extreme eigenvectors span the slice."""
    axes: list[list[float]]
    """[2][n] distances along the two unit vectors: of its largest eigenvalue, and of its
    smallest."""
    grids: dict[str, list[list[float]]]
    """[n][n] of each part: first axis by row."""
    parts: dict[str, Curvature]

    @property
    def identity(self) -> tuple[str, ...]:
        """As of every analysis, with the step and the slice."""
        return (*super().identity, str(self.step), self.layers, self.along)


def _parameters(line: Landscape) -> Iterator[str]:
    """At least one parameter is varied."""
    if line.parameters < 1:
        yield f"parameters is {line.parameters}"


def _shape(line: Landscape) -> Iterator[str]:
    """Every grid has the shape of the two axes."""
    sides = [len(axis) for axis in line.axes]
    if len(sides) != 2:
        yield f"axes has {len(sides)} axes, a slice has 2"
    for name, grid in line.grids.items():
        if [len(grid), *{len(row) for row in grid}] != sides:
            yield f"grids.{name} does not have the shape of the axes, {sides}"


def _curvatures(line: Landscape) -> Iterator[str]:
    """Eigenvalues are in order, coefficients in their range."""
    for name, part in line.parts.items():
        yield from (f"parts.{name}: {problem}" for problem in _curvature(part))


def _curvature(part: Curvature) -> Iterator[str]:
    for name, values in (("largest", part.largest), ("smallest", part.smallest)):
        if values != sorted(values, reverse=name == "largest"):
            yield f"{name} is not in order"
    if part.largest and part.smallest and part.largest[0] < part.smallest[0]:
        yield (
            f"the largest eigenvalue {part.largest[0]:g} is below the smallest, "
            f"{part.smallest[0]:g}"
        )
    for name in ("quadratic_r2", "fresh_r2", "repeated"):
        value = getattr(part, name)
        if value is not None and value > 1 + ROUNDING:
            yield f"{name} is {value:g}, above 1"
    for name in ("residual", "roughness"):
        value = getattr(part, name)
        if value is not None and value < 0:
            yield f"{name} is {value:g}, below zero"


LANDSCAPE_RULES: tuple[Rule[Any], ...] = (
    *ANALYSIS_RULES,
    _parameters,
    _shape,
    _curvatures,
)
LANDSCAPES = LineFile(
    "landscapes.jsonl", Landscape, "landscape", ANALYSIS_SCHEMA_VERSION, LANDSCAPE_RULES
)
