"""One contest: the arms of a pair with one seed, from their workers' start to their records."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from equivbench.errors import EquivbenchError, FailedError
from equivbench.execution.interrupt import Interrupt
from equivbench.execution.plan import Contest, extension
from equivbench.execution.protocol import Conclude, Concluded, Extend, FailedRunError, Standing
from equivbench.execution.race import Race
from equivbench.execution.state import finished_record, remember_record
from equivbench.execution.watching import Watcher
from equivbench.execution.workers import Worker
from equivbench.records.schema import RunRecord
from equivbench.records.store import read_record, write_record
from equivbench.training.job import Job


@dataclass(frozen=True)
class Kept:
    """A record on disk and the checkpoint of its weights; ``reused`` where an earlier run had
    written it."""

    record: RunRecord
    path: Path
    checkpoint: Path | None
    reused: bool = False


@dataclass
class Result:
    """What came of a plan."""

    kept: list[Kept] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """One plain sentence for each arm and seed that did not come to its end: killed, failed, not
    writable."""
    interrupted: bool = False

    @property
    def diverged(self) -> list[str]:
        """One plain sentence for each arm and seed whose training diverged."""
        records = [kept.record for kept in self.kept if kept.record.status == "diverged"]
        return [f"{r.task}/{r.pair} {r.arm} seed {r.seed} diverged: {r.reason}" for r in records]


class ContestHolder:
    """Holds one contest: trains and times what has no record yet, and adds the records to
    ``result``."""

    def __init__(
        self, contest: Contest, watcher: Watcher, result: Result, interrupt: Interrupt
    ) -> None:
        self._contest = contest
        self._watcher = watcher
        self._result = result
        self._interrupt = interrupt
        self._finished: dict[str, Kept] = {}

    def hold(self, extend: float | None) -> None:
        """From start to records; with ``extend`` the arm that is behind goes on to that many times
        the budget."""
        todo = [job for job in self._contest.jobs if not self._has_record(job)]
        with Race(self._watcher, self._interrupt, self._miss) as race:
            self._run(race, todo)
            if extend is not None and not self._interrupt.asked:
                self._extend(race, extend)

    def _run(self, race: Race, jobs: list[Job]) -> None:
        if jobs:
            self._watcher.begin(self._contest, jobs)
            race.start(jobs)
            race.train()
            self._conclude(race, race.time())

    def _extend(self, race: Race, factor: float) -> None:
        """Take the arm that is behind on to ``factor`` times the budget, as a second record."""
        ended = {
            arm: kept for arm, kept in self._finished.items() if kept.record.status == "completed"
        }
        losses = {
            arm: kept.record.final.total
            for arm, kept in ended.items()
            if kept.record.final is not None
        }
        known = {arm: loss for arm, loss in losses.items() if loss is not None}
        if len(known) < 2:
            self._watcher.note(
                f"{self._contest.pair} seed {self._contest.seed}: fewer than two arms completed, none is extended"
            )
            return
        behind = max(known, key=lambda arm: known[arm])
        job = extension(next(job for job in self._contest.jobs if job.arm == behind), factor)
        if self._has_record(job):
            return
        for worker in [worker for worker in race.alive if worker.job.arm != behind]:
            race.leave(worker)
        if not race.alive:
            self._run(race, [job])
            return
        # The step times taken a moment ago, in alternation, are those of the longer run too.
        timed = [arm for arm in ended if arm != behind]
        self._watcher.begin(self._contest, [job])
        for worker in race.alive:
            worker.job = job
            race.attempt(
                worker, lambda worker: race.note(worker, worker.ask(Extend(job), Standing))
            )
        race.train()
        self._conclude(race, timed)

    def _conclude(self, race: Race, timed: list[str]) -> None:
        self._watcher.phase("saving" if self._interrupt.asked else "measuring")
        for worker in list(race.alive):
            others = ", ".join(arm for arm in timed if arm != worker.job.arm) or None
            race.attempt(worker, partial(self._record, alternated_with=others))

    def _record(self, worker: Worker, alternated_with: str | None) -> None:
        concluded = worker.ask(
            Conclude(alternated_with, interrupted=self._interrupt.asked), Concluded
        )
        path = write_record(concluded.record, worker.job.out)
        self._keep(worker.job, Kept(concluded.record, path, Path(concluded.checkpoint)))
        remember_record(worker.job, path)

    def _has_record(self, job: Job) -> bool:
        """Whether an earlier run of ``job`` came to its end; its record is kept, not repeated."""
        path = finished_record(job) if job.resume else None
        if path is not None:
            self._keep(job, Kept(read_record(path), path, None, reused=True))
        return path is not None

    def _keep(self, job: Job, kept: Kept) -> None:
        self._result.kept.append(kept)
        if job.extends is None:
            self._finished[job.arm] = kept

    def _miss(self, error: EquivbenchError) -> None:
        """Note a failure, and keep the record of a run that failed on its way."""
        if str(error) not in self._result.failures:
            self._result.failures.append(str(error))
        if isinstance(error, FailedRunError) and error.record is not None:
            # What made the run fail (a full disk) may fail its record too; the sentence above has
            # said it.
            with contextlib.suppress(FailedError):
                path = write_record(error.record, self._contest.jobs[0].out)
                self._result.kept.append(Kept(error.record, path, None))
