"""What a worker is told, as plain data, and what it says of its progress. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from equivbench.errors import FailedError
from equivbench.records.schema import Attempt, Status
from equivbench.request import RunRequest


class Place(msgspec.Struct, frozen=True):
    """What a further rank of an arm computes on."""

    device: str
    """``cpu`` or ``cuda:N``."""
    name: str
    """As records name it: ``cpu:1`` is a share of the cores."""
    cores: tuple[int, ...] = ()
    """The CPUs that its process keeps to; none: all that it may use."""


class Job(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One arm with one seed, of what ``request`` asks for. It survives JSON."""

    request: RunRequest
    """What the user asked for: preset, forces, snapshots, whether to resume, the results folder."""
    pair: str
    """``task/pair``, as registered."""
    arm: str
    seed: int
    budget: str
    """As :meth:`equivbench.budget.Budget.parse` takes it; the pair's default is filled in."""
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
    """The budget that ``budget`` prolongs (``--extend``)."""
    unit: str = ""
    """Digest of the contest that it belongs to (:mod:`equivbench.execution.identity`)."""
    devices: list[str] = []
    """What it computes on, as records name it: ``cpu:1`` is a share of the cores."""
    cores: list[int] = []
    """The CPUs that its process keeps to; none: all that it may use."""
    replicas: tuple[Place, ...] = ()
    """What its further ranks compute on, where it has several (``--devices-per-arm``)."""
    beside: int = 0
    """How many other contests of the same plan may run at the same time on this machine."""
    started: str = ""
    """When the process that runs it now began with it (UTC, ISO 8601)."""
    attempts: list[Attempt] = []
    """Those before this one."""

    @property
    def label(self) -> str:
        """How messages name it: ``forcefield/vector augmented seed 0``."""
        return f"{self.pair} {self.arm} seed {self.seed}"

    @property
    def title(self) -> str:
        """The same for progress, with its labels: ``... (sweep data, value 0.25)``."""
        labels = ", ".join(f"{name} {value}" for name, value in self.labels.items())
        return f"{self.label} ({labels})" if labels else self.label

    def attested(self, machine_key: str, status: Status) -> dict[str, Any]:
        """The fields of its record that say which contest it belongs to and what worked on it, up
        to the process that leaves it with ``status``; nothing where it is part of no plan."""
        if not self.started:
            return {}
        last = Attempt(started=self.started, machine_key=machine_key, ended=status)
        return {
            "unit": self.unit,
            "devices": list(self.devices),
            "beside": self.beside,
            "attempts": [*self.attempts, last],
        }


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
    rung: float | None = None
    """The smaller budget whose result is being measured; None while the run itself goes on."""
    busy: str | None = None
    """At the end: what kept the run from its machine, as part of a sentence, if anything did."""
    seconds_left: float | None = None
    """Seconds of training and data at the speed so far; None before the first step."""
    wall: float = 0.0
    """Seconds that the run's own clock has counted so far."""
