"""Where the contests of a plan run: the contract of an executor, the executor of a name, and
``equivbench.run``, the command as a function."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from equivbench.errors import FailedError, InterruptedRunError, unknown_name
from equivbench.execution.plan import Contest, RunPlan, make_plan
from equivbench.records.collection import RunRecords
from equivbench.records.schema import RunRecord
from equivbench.records.store import write_record
from equivbench.registry import EXECUTORS, resolve
from equivbench.request import RunRequest, options_of
from equivbench.training.job import Job, Progress


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
    unbuilt: list[tuple[Job, str]] = field(default_factory=list)
    """Runs that failed before their arm was built, and why."""
    notes: list[str] = field(default_factory=list)
    """What users were told; several workers may say the same, which is told once."""
    interrupted: bool = False

    def add(self, other: RunResult) -> None:
        """Add what came of a part of the plan."""
        self.kept += other.kept
        self.failures += [text for text in other.failures if text not in self.failures]
        self.unbuilt += other.unbuilt
        self.notes += [text for text in other.notes if text not in self.notes]

    def keep_failed(self, record: RunRecord, out: str) -> None:
        """Write the ``record`` of a run that failed; where that fails too (what made the run fail
        may be a full disk) its sentence among the failures has to do."""
        with contextlib.suppress(FailedError):
            self.kept.append(KeptRecord(record, write_record(record, out), None))

    @property
    def diverged(self) -> list[str]:
        """One plain sentence for each arm and seed whose training diverged."""
        records = [kept.record for kept in self.kept if kept.record.status == "diverged"]
        return [f"{r.task}/{r.pair} {r.arm} seed {r.seed} diverged: {r.reason}" for r in records]


class Callback:
    """What is told how runs go. This one does nothing; subclasses show or keep what they need.

    The methods are called one after the other for each contest; where contests run side by side,
    from several threads, and for each of them those of what :meth:`beside` gives.
    """

    def beside(self) -> Callback:
        """What is told of one of several contests that run side by side: by default this one, of
        all."""
        return self

    def begin(self, contest: Contest, jobs: list[Job]) -> None:
        """Runs of ``jobs`` are about to start."""

    def show(self, job: Job, progress: Progress) -> None:
        """``job`` is as far as ``progress`` says."""

    def trained(self, job: Job, progress: Progress) -> None:
        """``job`` has spent its budget, or diverged."""

    def too_large(self, job: Job, why: str) -> None:
        """The memory of its device is too small for ``job``; ``why`` is its failure's sentence."""

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
    :func:`equivbench.execution.unit.run_unit` wherever it runs.
    """

    def resolve(self, plan: RunPlan) -> RunPlan:
        """``plan`` with what is known here of the machine that will run it (device, threads,
        kernel backend, state folders); the rest is resolved where the contests run.

        Raises ``FailedError`` for what the plan asks for and the machine lacks.
        """

    def script(self, plan: RunPlan) -> str:
        """What a resolved ``plan`` would be handed to a queue as, for ``--dry-run``; empty where
        there is none."""

    def run(self, plan: RunPlan, callback: Callback) -> RunResult:
        """Run every contest of ``plan``; a job that fails leaves the others alone.

        Raises ``FailedError`` before training if the results folder cannot be written, and
        ``UsageError`` for what only a worker can see (an option that the task does not have).
        """


def find_executor(name: str) -> Executor:
    """The executor called ``name``.

    Raises ``UsageError`` for a name that nothing has, with the close matches.
    """
    known = EXECUTORS.entries()
    if name in known:
        return cast(Executor, resolve(known[name].value.factory)())
    raise unknown_name("executor", name, known)


def run(
    pair: str | Sequence[str] = (),
    budget: str | None = None,
    seeds: str | Sequence[int] | None = None,
    device: str = "auto",
    out: str | Path = "results",
    *,
    callback: Callback | None = None,
    **options: Any,
) -> RunRecords:
    """Train the arms of a pair under one equal budget each, and record every arm and seed.

    It takes every option of ``equivbench run``, by the same name (:class:`RunRequest` lists them).
    The records are written below ``out`` too.

    Parameters
    ----------
    pair
        The pair, as ``task/pair``, or several. None given: the quick-start pair.
    budget
        The budget of each arm, such as ``60s`` or ``2000steps``. The default is the preset's.
    seeds
        The seeds, as numbers or as on the command line (``"0-5"``). The default is seed 0.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    out
        The results folder.
    callback
        Is told how the runs go.
    **options
        The other options: ``arms``, ``n_seeds``, ``preset``, ``threads``, ``kernels``, ``forces``,
        ``devices``, ``devices_per_arm``, ``rungs``, ``extend``, ``snapshots``, ``keep_weights``,
        ``resume``, ``executor``, ``executor_option``, ``workers``, ``detach``. With
        ``dry_run=True`` the request is checked and nothing is trained.

    Returns
    -------
    RunRecords
        A list, one for each arm and seed. A diverged arm is a record with that status.

    Raises
    ------
    UsageError
        For names, numbers and options that make no sense.
    FailedError
        Where a record could not be made; the others are on disk.
    InterruptedRunError
        After Ctrl-C; ``resume=True`` then goes on.
    """
    request = RunRequest.of(
        pairs=pair, budget=budget, seeds=seeds, device=device, out=out, **options
    )
    executor = find_executor(request.executor)
    plan = executor.resolve(make_plan(request))
    if request.dry_run:
        return RunRecords()
    result = executor.run(plan, callback or Callback())
    if result.interrupted:
        failed = f" ({'; '.join(result.failures)})" if result.failures else ""
        raise InterruptedRunError(
            f"the run was interrupted{failed}; its state is saved, resume=True goes on"
        )
    if result.failures:
        raise FailedError(
            f"{'; '.join(result.failures)}; resume=True goes on from the last checkpoints"
        )
    return RunRecords(kept.record for kept in result.kept)


# The signature has every option of the request in the place of ``**options``.
_own = inspect.signature(run)
_others = [
    inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=each.type
    )
    for name, each in options_of(RunRequest).items()
    if name != "pairs" and name not in _own.parameters
]
run.__signature__ = _own.replace(  # type: ignore[attr-defined]
    parameters=[*list(_own.parameters.values())[:-1], *_others]
)
