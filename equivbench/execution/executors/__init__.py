"""Where the contests of a plan run: the contract of an executor, and the executor of a name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from equivbench.errors import UsageError, unknown_name
from equivbench.execution.plan import Contest, RunPlan
from equivbench.records.schema import RunRecord
from equivbench.registry import EXECUTORS, resolve
from equivbench.training.job import Job
from equivbench.training.progress import Progress

PLANNED = ("ray", "slurm")
"""Executors that the public surface names and that are not built yet."""


@dataclass(frozen=True)
class KeptRecord:
    """A record on disk and the checkpoint of its weights."""

    record: RunRecord
    path: Path
    checkpoint: Path | None
    reused: bool = False
    """Whether an earlier run had written it."""


@dataclass
class RunResult:
    """What came of a plan."""

    kept: list[KeptRecord] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """One plain sentence for each arm and seed that did not come to its end: killed, failed, not
    writable."""
    interrupted: bool = False

    @property
    def diverged(self) -> list[str]:
        """One plain sentence for each arm and seed whose training diverged."""
        records = [kept.record for kept in self.kept if kept.record.status == "diverged"]
        return [f"{r.task}/{r.pair} {r.arm} seed {r.seed} diverged: {r.reason}" for r in records]


class Callback:
    """What is told how runs go. This one does nothing; subclasses show or keep what they need.

    The methods are called one after the other for each contest; where contests run side by side,
    from several threads.
    """

    def begin(self, contest: Contest, jobs: list[Job]) -> None:
        """Runs of ``jobs`` are about to start."""

    def show(self, job: Job, progress: Progress) -> None:
        """``job`` is as far as ``progress`` says."""

    def trained(self, job: Job, progress: Progress) -> None:
        """``job`` has spent its budget, or diverged."""

    def phase(self, text: str) -> None:
        """What happens now, such as ``timing``."""

    def note(self, text: str) -> None:
        """A line for the user."""

    def end(self) -> None:
        """The contest is over."""


@runtime_checkable
class Executor(Protocol):
    """Runs plans somewhere: on this machine, in the jobs of a cluster.

    The unit is a contest: its arms take turns on one machine and never leave it, since the
    differences between two machines would be in the comparison. An executor places contests and
    repeats what was lost; training, timing and recording are those of
    :func:`equivbench.execution.contest.run_contest` wherever it runs.
    """

    def resolve(self, plan: RunPlan) -> RunPlan:
        """``plan`` with what is known here of the machine that will run it (device, threads,
        kernel backend, state folders); the rest is resolved where the contests run.

        Raises ``FailedError`` for what the plan asks for and the machine lacks.
        """

    def run(self, plan: RunPlan, callback: Callback) -> RunResult:
        """Run every contest of ``plan``; a job that fails leaves the others alone.

        Raises ``FailedError`` before training if the results folder cannot be written, and
        ``UsageError`` for what only a worker can see (an option that the task does not have).
        """


def find_executor(name: str) -> Executor:
    """The executor called ``name``.

    Raises
    ------
    UsageError
        For a name that nothing has, with the close matches, and for one that is not built yet.
    """
    known = EXECUTORS.entries()
    if name in known:
        return cast(Executor, resolve(known[name].value.factory)())
    if name in PLANNED:
        raise UsageError(f"--executor {name} is planned and not built yet; use --executor local")
    raise unknown_name("executor", name, (*known, *PLANNED))
