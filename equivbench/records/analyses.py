"""What the analyses of trained models leave on disk: gradients along a run, the landscape around
its weights; a JSON line each.

They lie beside the run records of a machine, as ``results/<machine-key>/gradients.jsonl`` and
``landscapes.jsonl``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from equivbench.records.files import merge_lines, read_lines
from equivbench.records.schema import Environment, Git

ANALYSIS_SCHEMA_VERSION = 1
GRADIENTS, LANDSCAPES = "gradients.jsonl", "landscapes.jsonl"
Number = float | None
Part = Literal["total", "twirled", "equivariance"]
PARTS: tuple[Part, ...] = ("total", "twirled", "equivariance")


class Estimate(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A value with its 95% interval; null where it was not measured or an end is open (``reasons``
    say why)."""

    value: Number
    low: Number = None
    high: Number = None


class Analysed(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which run was analysed, on what, and by which command."""

    schema_version: int = ANALYSIS_SCHEMA_VERSION
    created: str
    """UTC, ISO 8601."""
    command: str
    run_id: str
    task: str
    pair: str
    arm: str
    model: str
    preset: str
    seed: int
    """Of the run."""
    variant: dict[str, str]
    dataset_sha256: str
    weights: Literal["ema", "model"]
    """Averaged, or raw."""
    split: str
    samples: int
    rotations: int
    group: Literal["so3", "octahedral"]
    analysis_seed: int
    """Of samples, noise and rotations."""
    seconds: float
    """What the analysis took."""
    reasons: dict[str, str] = {}
    """Why a value is null, by its path, such as ``points.3.ratio``."""
    environment: Environment
    git: Git

    @property
    def identity(self) -> tuple[str, ...]:
        """What of two analyses with the same one in a file makes the newer count."""
        where = (self.environment.machine_key, self.task, self.pair, self.arm, self.run_id)
        return (*where, self.weights, self.split, self.group, str(self.analysis_seed))


class GradientPoint(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Norms of the gradients by all trained parameters at one snapshot, each the root of an
    unbiased estimate of its square."""

    step: int
    samples: int
    train_seconds: float
    total: Number
    """Board metric at this step, by the run's evaluation of its averaged weights; of raw ones, on
    the analysis's samples."""
    share: Number
    """Of the same evaluation."""
    twirled_norm: Estimate
    equivariance_norm: Estimate
    ratio: Estimate
    """``equivariance_norm / twirled_norm``."""
    deviation: Number
    """Relative squared distance of the symmetry-breaking parameters from their symmetric
    projection; null without one."""


class Gradients(Analysed, kw_only=True, forbid_unknown_fields=True):
    """The gradients of the parts of the error along one run."""

    kind: Literal["gradients"] = "gradients"
    chunks: int
    """Independent parts of the samples whose gradients are multiplied."""
    points: list[GradientPoint]
    correlations: dict[str, Estimate]
    """With the share, over the points, in logarithms: ``ratio``, ``ratio detrended``,
    ``deviation``, ``deviation detrended``.

    Detrended: between the residuals of both after a quadratic in log step
    (:mod:`equivbench.studies.gradients.trends`).
    """


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


class Landscape(Analysed, kw_only=True, forbid_unknown_fields=True):
    """A two-dimensional slice of each part of the error around trained weights."""

    kind: Literal["landscape"] = "landscape"
    step: int
    layers: str
    """Pattern of the parameters that are varied; ``*`` is all."""
    parameters: int
    """How many numbers they hold."""
    precision: Literal["float64", "float32"]
    """Of the model's arithmetic in the analysis."""
    along: Part
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


def read_gradients(path: Path) -> list[Gradients]:
    """The gradient analyses in ``path``; raises ``FailedError`` naming file and line where it holds
    none or anything else."""
    return read_lines(path, Gradients, "gradient analysis")


def read_landscapes(path: Path) -> list[Landscape]:
    """The landscapes in ``path``; raises ``FailedError`` naming file and line where it holds none
    or anything else."""
    return read_lines(path, Landscape, "landscape")


def keep_gradients(analyses: Iterable[Gradients], results: Path) -> list[Path]:
    """Add ``analyses`` to the files of their machines below ``results``, in place of earlier ones
    of the same."""
    return _keep(analyses, results, GRADIENTS, read_gradients)


def keep_landscapes(analyses: Iterable[Landscape], results: Path) -> list[Path]:
    """Add ``analyses`` to the files of their machines below ``results``, in place of earlier ones
    of the same."""
    return _keep(analyses, results, LANDSCAPES, read_landscapes)


def _keep(analyses: Iterable[Any], results: Path, name: str, read: Any) -> list[Path]:
    machines: dict[str, list[Any]] = {}
    for analysis in analyses:
        machines.setdefault(analysis.environment.machine_key, []).append(analysis)
    return [
        merge_lines(found, results / machine / name, read) for machine, found in machines.items()
    ]
