"""What a worker is told, as plain data, and what it says of its progress: a job, how far it is, and
at which points of its budget it is evaluated. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from equivbench.errors import FailedError
from equivbench.request import Budget, RunRequest


class Job(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One arm with one seed, of what ``request`` asks for. It survives JSON."""

    request: RunRequest
    """What the user asked for: preset, forces, snapshots, whether to resume, the results folder."""
    pair: str
    """``task/pair``, as registered."""
    arm: str
    seed: int
    budget: str
    """As :meth:`equivbench.request.Budget.parse` takes it; the pair's default is filled in."""
    run_id: str
    created: str = ""
    """UTC, ISO 8601."""
    contest: str = ""
    """Shared by the jobs that take turns on one machine."""
    command: str = ""
    """The command line, for the record."""
    state_dir: str = ""
    """Folder of this run's checkpoints and heartbeat, in the cache of the machine it runs on."""
    device: str = "cpu"
    """``cpu``, ``cuda`` or ``cuda:N``, as the machine that runs the job resolved it."""
    threads: int = 1
    """Intra-op threads, set by the worker before it builds the trainer."""
    kernels: str | None = None
    """Kernel backend, passed to the model as ``config["kernels"]``. None leaves the model its own
    default, as for every model that takes its operations from no backend."""
    variant: dict[str, str] = {}
    """The task's options that were chosen, e.g. ``{"forces": "conservative"}``; options left out
    take their default."""
    recipe: dict[str, Any] = {}
    """Fields of :class:`equivbench.specs.Recipe` that replace the preset's (``tune``, sweeps)."""
    config: dict[str, Any] = {}
    """Entries that replace those of the model's config (sweeps over model size)."""
    fraction: float = 1.0
    """Part of the training groups that is trained on
    (:func:`equivbench.tasks.splits.with_fraction`)."""
    labels: dict[str, str] = {}
    """What sets the run apart from the pair as declared, such as a sweep's axis and value; the
    record's ``variant`` has it."""
    split: Literal["test", "validation"] = "test"
    """What evaluations are made on; ``tune`` uses the validation split."""
    extends: str | None = None
    """The budget that ``budget`` prolongs (``--extend``): evaluations up to it fall as in the run
    without extension."""

    @property
    def label(self) -> str:
        """How messages name it: ``forcefield/vector augmented seed 0``."""
        return f"{self.pair} {self.arm} seed {self.seed}"

    @property
    def title(self) -> str:
        """The same for progress, with its labels: ``... (sweep data, value 0.25)``."""
        labels = ", ".join(f"{name} {value}" for name, value in self.labels.items())
        return f"{self.label} ({labels})" if labels else self.label


def read_job(facts: Mapping[str, Any]) -> Job:
    """The job that a checkpoint keeps.

    Raises ``FailedError`` where another version of equivbench wrote it.
    """
    try:
        return msgspec.convert(facts, Job)
    except msgspec.ValidationError as error:
        raise FailedError(
            f"another version of equivbench wrote this checkpoint ({error}); train the run again"
        ) from error


FIRST_FRACTION = 0.02
"""The first evaluation falls at 2% of the budget: the curve then spans a factor 50 in n, enough for
break-even ratios."""


class Progress(msgspec.Struct, tag="progress", frozen=True):
    """How far one arm's training is. ``spent`` and ``limit`` are in the budget's own unit."""

    step: int
    spent: float
    limit: float
    finished: bool
    """The budget is spent, or the arm diverged."""
    samples: int = 0
    diverged: str | None = None
    """Why the arm diverged, if it did."""
    loss: float | None = None
    """Training objective, averaged over recent steps."""
    total: float | None = None
    """Board metric of the last evaluation; ``share`` and ``explained`` belong to it."""
    share: float | None = None
    explained: float | None = None
    samples_per_second: float | None = None
    seconds_left: float | None = None
    """Seconds of training and data at the speed so far; None before the first step."""


def evaluation_points(budget: Budget, evaluations: int, first: float | None = None) -> list[float]:
    """Ascending points of spent budget at which to evaluate, the last exactly ``budget.limit``.

    ``evaluations`` points log-spaced from ``first`` (default 2% of the limit); whole numbers,
    without repeats, where the budget counts steps or samples.
    """
    limit = budget.limit
    first = limit * FIRST_FRACTION if first is None else first
    count = max(1, evaluations)
    ratio = (first / limit) ** (1.0 / max(1, count - 1))
    points = [limit * ratio**k for k in range(count - 1, 0, -1)]
    if budget.kind != "seconds":
        points = [float(math.ceil(point)) for point in points]
    return [*sorted({point for point in points if point < limit}), limit]


def extension_points(reached: float, budget: Budget, evaluations: int) -> list[float]:
    """Further points after ``reached``, up to ``budget.limit``, as dense in log spent as the first
    ``evaluations``."""
    step = math.log(1.0 / FIRST_FRACTION) / max(1, evaluations - 1)
    count = max(1, math.ceil(math.log(budget.limit / reached) / step))
    ratio = (budget.limit / reached) ** (1.0 / count)
    return [
        point
        for point in evaluation_points(budget, count, first=reached * ratio)
        if point > reached
    ]
