"""What was measured of one pretrained network: a line of ``pretrained.jsonl`` beside the run
records of a machine, and what makes such a line right. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec

from equivbench.records.rules import Rule
from equivbench.records.schema import Environment, Git, Number
from equivbench.specs import Group, Symmetry

PRETRAINED_SCHEMA_VERSION = 1
AVERAGED_OVER = (2, 4, 8)
"""Numbers of rotations that a prediction is averaged over, for what that buys and costs."""
_ROUNDING = 1e-9
"""Relative: some sums and products in float64."""


class AveragedCost(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the average of n predictions on rotated inputs buys and costs."""

    error: float
    """Expected error of the average: the twirled part and an n-th of the equivariance error."""
    seconds: float
    """n times the seconds of one call."""


class GridErrors(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The equivariance error of a network on a voxel grid by what causes it."""

    poses: int
    """Random orientations, each of which is turned by all 24 rotations of the cube and moved by all
    8 half-cell translations."""
    learning: float
    """Variance under the 24 rotations of the cube, which take grid points to grid points: what was
    not learned."""
    grid: float
    """The rest of the variance under rotations, which only rotations between these cause."""
    translation: float
    """Variance under half-cell translations, which say nothing about the complex: the grid once
    more, without any rotation."""


class PretrainedMeasurement(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The symmetry decomposition of one pretrained network, and what a call of it costs.

    Without reference values (``reference`` is null) there is no error to decompose: ``total`` is
    then the mean squared prediction, and the share that of the prediction.
    """

    schema_version: int = PRETRAINED_SCHEMA_VERSION
    created: str
    """UTC, ISO 8601."""
    command: str
    network: str
    family: str
    source: str
    """Where the network was published."""
    packages: dict[str, str]
    """Versions of the packages that it came with, and of torch, in its own environment."""
    data: str
    """What it was measured on."""
    data_sha256: str
    reference: str | None
    """What the predictions are compared with; null: with nothing."""
    unit: str
    """Of every error."""
    samples: int
    atoms: float
    """Mean number of atoms of a sample."""
    rotations: int
    """Of each sample."""
    group: Group
    seed: int
    symmetry: Symmetry
    """What its authors declare."""
    symmetry_verified: bool | None
    """Whether the measurement confirms that; null where nothing is declared, or it could not be
    decided."""
    verdict: str
    """What was measured that decides on the symmetry, or why nothing decides."""
    total: float
    twirled: float
    equivariance: float
    share: float
    share_low: Number
    """95% interval, resampling samples; null for fewer than four."""
    share_high: Number
    floor: Number
    """The share that rounding alone would show."""
    explained: Number
    """1 - total over the error of predicting nothing."""
    averaged: dict[str, AveragedCost]
    """By the number of rotations."""
    call_seconds: float
    """Median of one call, with one sample, after a warm-up."""
    calls: int
    """How many were timed."""
    grid: GridErrors | None = None
    """Of a network on a voxel grid."""
    reasons: dict[str, str] = {}
    """Why a value is null, by its name."""
    environment: Environment
    git: Git

    @property
    def identity(self) -> tuple[str, ...]:
        """The network, what it was measured on, and where."""
        return (self.network, self.data, self.group, self.environment.machine_key)


def newest(lines: list[PretrainedMeasurement]) -> list[PretrainedMeasurement]:
    """The first measurement of each network, data, group and machine among those with the newest
    packages of it and the newest code of equivbench, of those with the most samples and rotations
    (a quick look has few): later ones are repetitions, which replace nothing."""
    kept: dict[tuple[str, ...], PretrainedMeasurement] = {}
    for line in sorted(lines, key=lambda each: each.created):
        before = kept.get(line.identity)
        if before is None or _code(before) != _code(line) or _size(before) < _size(line):
            kept[line.identity] = line
    return list(kept.values())


def _code(line: PretrainedMeasurement) -> object:
    return line.packages, line.data_sha256, line.git.version, line.git.dirty


def _size(line: PretrainedMeasurement) -> int:
    return line.samples * line.rotations


def _counts(line: PretrainedMeasurement) -> Iterator[str]:
    """Samples, rotations, atoms and calls can be counted, and calls take time."""
    for name, least in (("samples", 1), ("rotations", 2), ("atoms", 1), ("calls", 1)):
        if getattr(line, name) < least:
            yield f"{name} is {getattr(line, name):g}, below {least}"
    if line.call_seconds <= 0:
        yield f"call_seconds is {line.call_seconds:g}"


def _decomposition(line: PretrainedMeasurement) -> Iterator[str]:
    """The total is the sum of its parts, and the share follows from them."""
    if line.total <= 0 or line.equivariance < 0:
        yield f"total is {line.total:g} and equivariance {line.equivariance:g}"
        return
    if not _alike(line.twirled + line.equivariance, line.total, line.total):
        yield (
            f"total is {line.total:g}, twirled and equivariance make "
            f"{line.twirled + line.equivariance:g}"
        )
    if not _alike(line.equivariance / line.total, line.share, line.share):
        yield f"share is {line.share:g}, its parts make it {line.equivariance / line.total:g}"
    low, high = line.share_low, line.share_high
    if low is not None and high is not None:
        # An unbiased share may come out above 1, where its interval ends.
        lies = low <= line.share and min(line.share, 1.0) <= high
        if not (lies and 0 <= low <= high <= 1):
            yield f"share {line.share:g} does not lie in its interval, {low:g} to {high:g}"
    if line.floor is not None and line.floor < 0:
        yield f"floor is {line.floor:g}"
    if line.explained is not None and line.explained > 1:
        yield f"explained is {line.explained:g}, above 1"


def _averages(line: PretrainedMeasurement) -> Iterator[str]:
    """What averaging buys and costs follows from the parts and the time of a call."""
    if set(line.averaged) != {str(count) for count in AVERAGED_OVER}:
        yield f"averaged is of {', '.join(line.averaged) or 'nothing'}, not of 2, 4 and 8"
        return
    for name, found in line.averaged.items():
        error = line.twirled + line.equivariance / int(name)
        if not _alike(error, found.error, line.total):
            yield f"averaged.{name}.error is {found.error:g}, the parts make it {error:g}"
        seconds = line.call_seconds * int(name)
        if not _alike(seconds, found.seconds, seconds):
            yield f"averaged.{name}.seconds is {found.seconds:g}, {name} calls take {seconds:g}"


def _verdicts(line: PretrainedMeasurement) -> Iterator[str]:
    """Only a declared symmetry can be verified."""
    if line.symmetry == "none" and line.symmetry_verified is not None:
        yield "symmetry_verified is said of a network that declares none"
    if not line.verdict:
        yield "verdict is empty"


def _grid(line: PretrainedMeasurement) -> Iterator[str]:
    """What was not learned and what is the grid's make up the equivariance error."""
    if line.grid is None:
        return
    for name in ("learning", "translation"):
        if getattr(line.grid, name) < 0:
            yield f"grid.{name} is {getattr(line.grid, name):g}"
    made = line.grid.learning + line.grid.grid
    if not _alike(made, line.equivariance, line.equivariance):
        yield f"grid.learning and grid.grid make {made:g}, equivariance is {line.equivariance:g}"


def _nulls(line: PretrainedMeasurement) -> Iterator[str]:
    """A value that was not measured is null with a reason."""
    names = ("share_low", "share_high", "floor", "explained", "reference")
    missing = [each for each in names if getattr(line, each) is None and each not in line.reasons]
    yield from (f"{name} is null and reasons has no entry for it" for name in missing)


def _alike(first: float, second: float, scale: float) -> bool:
    return math.isclose(first, second, rel_tol=_ROUNDING, abs_tol=_ROUNDING * abs(scale))


PRETRAINED_RULES: tuple[Rule[Any], ...] = (
    _counts,
    _decomposition,
    _averages,
    _verdicts,
    _grid,
    _nulls,
)
