"""What every analysis of a trained run is asked for, and what it leaves on disk: which run it was,
how it was analysed, and values with their intervals. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from equivbench.errors import UsageError
from equivbench.gap.intervals import Quantity
from equivbench.records.rules import Rule
from equivbench.records.schema import Environment, Git, Number
from equivbench.request import Request, option

ANALYSIS_SCHEMA_VERSION = 1
Weights = Literal["ema", "model"]
ErrorPart = Literal["total", "twirled", "equivariance"]
ERROR_PARTS: tuple[ErrorPart, ...] = ("total", "twirled", "equivariance")


@dataclass(frozen=True, kw_only=True)
class AnalysisRequest(Request):
    """What every analysis of a trained run can be asked for."""

    weights: Weights = option(
        "model",
        "Which weights to analyse: those of the model, which are annealed at the end of a run and "
        "raw along it, or their average (ema).",
    )
    split: str = option("test", "The split that samples are taken from: test, validation or train.")
    samples: int | None = option(
        None, "Number of samples. The default is chosen from what a pass over them costs."
    )
    seed: int = option(0, "The seed of samples, noise, rotations and everything else drawn.")
    device: str = option("auto", "Where to compute: auto, cpu, cuda or cuda:N.", recorded=False)
    out: str | None = option(None, "Keep the analysis in this results folder.", recorded=False)
    plot: str | None = option(
        None, "Draw the analysis into this file (.png, .pdf or .svg).", recorded=False
    )

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UsageError(f"--seed must be at least 0, not {self.seed}")
        if self.samples is not None and self.samples < 1:
            raise UsageError(f"--samples must be at least 1, not {self.samples}")


class Estimate(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A value with its 95% interval; null where it was not measured or an end is open (``reasons``
    say why)."""

    value: Number
    low: Number = None
    high: Number = None

    @property
    def quantity(self) -> Quantity:
        """The same for tables and arithmetic."""
        return Quantity(self.value, self.low, self.high)

    @classmethod
    def of(cls, quantity: Quantity) -> Estimate:
        """``quantity`` as it is kept; one that is only a bound has no place here."""
        return cls(value=quantity.value, low=quantity.low, high=quantity.high)


class RunAnalysis(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
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
    """That of the run as far as it changed what was computed
    (:func:`equivbench.records.declared.effective_variant`)."""
    dataset_sha256: str
    weights: Weights
    """Those of the model, annealed at the end of the run and raw along it, or averaged
    (``ema``)."""
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
        """What repetitions of one analysis share; of those in a file the first counts."""
        where = (self.environment.machine_key, self.task, self.pair, self.arm, self.run_id)
        return (*where, self.weights, self.split, self.group, str(self.analysis_seed))


def _counts(line: RunAnalysis) -> Iterator[str]:
    """Samples, rotations and seconds can be counted."""
    counts = {name: getattr(line, name) for name in ("samples", "rotations")}
    yield from (f"{name} is {count}" for name, count in counts.items() if count < 1)
    if line.seconds < 0:
        yield f"seconds is {line.seconds:g}"


def _intervals(line: RunAnalysis) -> Iterator[str]:
    """Every estimate lies in its interval."""
    for path, estimate in _estimates(line, ""):
        value, low, high = estimate.value, estimate.low, estimate.high
        known = [number for number in (low, value, high) if number is not None]
        if known != sorted(known):
            yield f"{path}: {value} does not lie in its interval from {low} to {high}"


def _nulls(line: RunAnalysis) -> Iterator[str]:
    """A value that was not measured is null with a reason."""
    for path, estimate in _estimates(line, ""):
        if estimate.value is None and not _explained(path, line.reasons):
            yield f"{path} is null and reasons has no entry for it"


def _estimates(value: Any, path: str) -> Iterator[tuple[str, Estimate]]:
    if isinstance(value, Estimate):
        yield path, value
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _estimates(getattr(value, name), f"{path}.{name}" if path else name)
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _estimates(item, f"{path}.{key}")


def _explained(path: str, reasons: dict[str, str]) -> bool:
    return any(
        reason == path or path.startswith(f"{reason}.") or reason.startswith(f"{path}.")
        for reason in reasons
    )


ANALYSIS_RULES: tuple[Rule[RunAnalysis], ...] = (
    _counts,
    _intervals,
    _nulls,
)
"""What every analysis keeps, whatever it measured."""
