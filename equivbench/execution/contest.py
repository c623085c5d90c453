"""A contest on this machine: its workers are trained in turn, timed in alternation and recorded."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from equivbench.budget import Budget
from equivbench.errors import EquivbenchError, FailedError, UsageError
from equivbench.execution.dead import as_failed
from equivbench.execution.executors import Callback, KeptRecord, RunResult
from equivbench.execution.interrupt import Interrupt, WhileHeard
from equivbench.execution.leases import ArmProgress, HeldLease
from equivbench.execution.messages import (
    Conclude,
    Concluded,
    Extend,
    Prepare,
    Ready,
    Slice,
    Time,
)
from equivbench.execution.plan import Contest, extension
from equivbench.execution.state import remember_record
from equivbench.execution.workers import FailedRunError, TooLargeError, WorkerProcess
from equivbench.records.store import read_record, write_record
from equivbench.records.weight_files import put_beside, weights_beside
from equivbench.training.job import Job, Progress

TIMING_ROUNDS = 8
"""Alternated timing rounds an arm: enough that a disturbance of seconds cannot hit one arm only
(notes/harness.md)."""


class ContestRun:
    """A contest on this machine: its workers, one an arm, have the machine in turn.

    A worker that fails leaves, and the others go on without it; usage errors end the contest, since
    they are wrong for every arm. A job of which ``finished`` gives a record is not repeated.
    ``result`` gets the records and the failures; once ``interrupt`` is asked for, turns end, and
    what is known is saved and recorded. A ``lease`` is kept alive meanwhile; once it is lost,
    nothing is recorded any more.
    """

    def __init__(
        self,
        contest: Contest,
        callback: Callback,
        result: RunResult,
        interrupt: Interrupt,
        finished: Callable[[Job], Path | None] = lambda job: None,
        lease: HeldLease | None = None,
    ) -> None:
        self._contest = contest
        self._callback = WhileHeard(callback)
        self._result = result
        self._interrupt = interrupt
        self._finished_at, self._lease = finished, lease
        self.abandoned = False
        """Whether somebody else is at work on this contest now: nothing of it is recorded any
        more."""
        self._doing = ""
        self._in_turn: WorkerProcess | None = None
        self._alive: list[WorkerProcess] = []
        self._progress: dict[str, Progress] = {}
        """How far each arm was when it last said so."""
        self._trained: set[tuple[str, str]] = set()
        """(arm, budget) of what the callback knows to be trained."""
        self._finished: dict[str, KeptRecord] = {}

    def run(self, extend: float | None) -> None:
        """Train, time and record what has no record yet; ``extend``: the arm that is behind goes on
        to this many times the budget, as a second record."""
        try:
            if self._lease is not None:
                self._lease.keep(self.report, self.abandon)
            with self._interrupt.killing(self._kill):
                todo = [job for job in self._contest.jobs if not self._has_record(job)]
                self._train(todo)
                if extend is not None and not self._stopped:
                    self._extend(extend)
        except KeyboardInterrupt:
            # A second Ctrl-C means now: what the last checkpoints hold is what is kept.
            for worker in self._alive:
                worker.kill()
            raise
        finally:
            for worker in list(self._alive):
                self._remove(worker)
            self._callback.end()
        for job in todo:
            # A trial of a tuning is never resumed: its result is in the log.
            if job.split == "validation":
                shutil.rmtree(job.state_dir, ignore_errors=True)

    def report(self) -> dict[str, object]:
        """What goes on, for whoever looks at the plan."""
        progress = {
            arm: ArmProgress(step=each.step, spent=each.spent, limit=each.limit)
            for arm, each in list(self._progress.items())
        }
        return {"doing": self._doing, "progress": progress}

    def abandon(self) -> None:
        """End the turn under way and record nothing: somebody else has taken the contest over. Safe
        to call from another thread."""
        self.abandoned = True
        worker = self._in_turn
        if worker is not None:
            worker.end_turn()

    @property
    def _stopped(self) -> bool:
        return self._interrupt.asked or self.abandoned

    def _kill(self) -> None:
        """End every worker at once; safe to call from a signal handler."""
        for worker in list(self._alive):
            worker.end_now()

    def _say(self, phase: str) -> None:
        self._doing = phase
        self._callback.phase(phase)

    def _train(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        self._callback.begin(self._contest, jobs)
        self._start(jobs)
        self._take_turns()
        if jobs[0].split == "test":
            self._record_all(self._time())

    def _extend(self, factor: float) -> None:
        """Take the arm that is behind on to ``factor`` times the budget, as a second record."""
        records = {arm: kept.record for arm, kept in self._finished.items()}
        ended = {arm: each.final for arm, each in records.items() if each.status == "completed"}
        losses = {arm: None if final is None else final.total for arm, final in ended.items()}
        known = {arm: loss for arm, loss in losses.items() if loss is not None}
        if len(known) < 2:
            self._callback.note(
                f"{self._contest.pair} seed {self._contest.seed}: fewer than two arms completed, "
                "so none is extended"
            )
            return
        behind = max(known, key=lambda arm: known[arm])
        job = extension(next(job for job in self._contest.jobs if job.arm == behind), factor)
        if self._has_record(job):
            return
        for worker in [worker for worker in self._alive if worker.job.arm != behind]:
            self._remove(worker)
        if not self._alive:
            self._train([job])
            return
        self._callback.begin(self._contest, [job])
        for worker in self._alive:
            worker.job = job
            self._attempt(worker, lambda each: self._show(each, each.ask(Extend(job), Progress)))
        self._take_turns()
        # The step times taken a moment ago, in alternation, are those of the longer run too.
        self._record_all([arm for arm in ended if arm != behind])

    def _start(self, jobs: Sequence[Job]) -> None:
        """A worker for each job. They import at the same time and prepare one after the other:
        compilation is on the clock."""
        self._say("loading")
        with self._interrupt.at_once():
            for job in jobs:
                try:
                    worker = WorkerProcess(job, self._note)
                except UsageError:
                    raise
                except EquivbenchError as error:
                    self._fail(job, error)
                    continue
                self._alive.append(worker)
                self._attempt(worker, WorkerProcess.begin)
            for worker in list(self._alive):
                self._attempt(worker, lambda each: each.answer(Ready))
            self._say("preparing")
            for worker in list(self._alive):
                # In a thread no signal ends this: nothing is worth saving yet.
                if self._stopped:
                    raise KeyboardInterrupt
                self._attempt(worker, lambda each: self._show(each, each.ask(Prepare(), Progress)))

    def _take_turns(self) -> None:
        """Slices in the order A B B A until every arm is done, so that what disturbs the machine
        hits both."""
        self._say("training")
        order = list(self._alive)
        while any(self._is_running(worker) for worker in order) and not self._stopped:
            for worker in order:
                if self._is_running(worker) and not self._stopped:
                    self._take_turn(worker, Slice(_slice_seconds(worker.job)))
            order.reverse()

    def _time(self) -> list[str]:
        """Alternated rounds of real steps, off the budget. Returns the arms that were timed: a
        diverged one has no step worth it."""
        self._say("timing")
        order = [each for each in self._alive if self._progress[each.job.arm].diverged is None]
        for _ in range(TIMING_ROUNDS):
            for worker in order:
                if worker in self._alive and not self._stopped:
                    self._take_turn(worker, Time(_timing_seconds(worker.job)))
            order.reverse()
        return [worker.job.arm for worker in order if worker in self._alive]

    def _is_running(self, worker: WorkerProcess) -> bool:
        return worker in self._alive and not self._progress[worker.job.arm].finished

    def _take_turn(self, worker: WorkerProcess, command: Slice | Time) -> None:
        def turn(worker: WorkerProcess) -> None:
            self._in_turn = worker
            try:
                with self._interrupt.ending(worker.end_turn):
                    self._show(worker, worker.take_turn(command, partial(self._show, worker)))
            finally:
                self._in_turn = None

        self._attempt(worker, turn)

    def _show(self, worker: WorkerProcess, progress: Progress) -> None:
        """Keep and pass on how far ``worker`` is."""
        self._progress[worker.job.arm] = progress
        self._callback.show(worker.job, progress)
        key = (worker.job.arm, worker.job.budget)
        if progress.finished and key not in self._trained:
            self._trained.add(key)
            self._callback.trained(worker.job, progress)

    def _attempt(self, worker: WorkerProcess, act: Callable[[WorkerProcess], object]) -> None:
        """Do ``act``; a worker that fails at it leaves."""
        if worker not in self._alive:
            return
        try:
            act(worker)
        except UsageError:
            raise
        except EquivbenchError as error:
            self._fail(worker.job, error)
            self._remove(worker)

    def _remove(self, worker: WorkerProcess) -> None:
        """End ``worker``; one that is still loading has nothing to save."""
        self._alive.remove(worker)
        if worker.job.arm in self._progress:
            worker.stop()
        else:
            worker.kill()

    def _record_all(self, timed: list[str]) -> None:
        self._say("saving" if self._interrupt.asked else "measuring")
        for worker in list(self._alive):
            if self.abandoned or (self._lease is not None and self._lease.lost):
                self.abandoned = True
                return
            others = ", ".join(arm for arm in timed if arm != worker.job.arm) or None
            self._attempt(worker, partial(self._record, alternated_with=others))

    def _record(self, worker: WorkerProcess, alternated_with: str | None) -> None:
        command = Conclude(alternated_with, interrupted=self._interrupt.asked)
        concluded = worker.ask(command, Concluded)
        wrong = worker.turns.disagreement()
        if wrong is not None:
            why = f"{worker.job.label}: {wrong}"
            # Gone on with, it would have no turn in which its clock could be seen.
            shutil.rmtree(worker.job.state_dir, ignore_errors=True)
            raise FailedRunError(why, as_failed(concluded.record, why))
        path = write_record(concluded.record, worker.job.request.out)
        self._keep(worker.job, KeptRecord(concluded.record, path, Path(concluded.checkpoint)))
        remember_record(worker.job, path)

    def _has_record(self, job: Job) -> bool:
        """Whether an earlier run of ``job`` came to its end; its record is kept, not repeated."""
        path = self._finished_at(job)
        if path is not None:
            self._keep(job, KeptRecord(read_record(path), path, None, reused=True))
        return path is not None

    def _keep(self, job: Job, kept: KeptRecord) -> None:
        self._result.kept.append(kept)
        if job.extends is None:
            self._finished[job.arm] = kept
        sha256 = kept.record.weights_sha256
        if job.request.keep_weights and sha256 and not weights_beside(kept.path).is_file():
            try:
                put_beside(kept.path, sha256)
            except FailedError as error:  # the record is there all the same
                self._result.failures.append(f"{job.label}: {error}")

    def _note(self, text: str) -> None:
        if text not in self._result.notes:
            self._result.notes.append(text)
            self._callback.note(text)

    def _fail(self, job: Job, error: EquivbenchError) -> None:
        """Note a failure of ``job``, and keep the record of a run that failed on its way. What was
        told to end at once has not failed."""
        if self._interrupt.now or self.abandoned:
            return
        if str(error) not in self._result.failures:
            self._result.failures.append(str(error))
            others = [worker for worker in self._alive if worker.job is not job]
            # The command ends with it, which may be hours from now.
            if others and job.split == "test" and not self._stopped:
                rest = "the other arm goes on" if len(others) == 1 else "the other arms go on"
                self._callback.note(f"{error}; {rest}")
        if isinstance(error, TooLargeError):
            self._callback.too_large(job, str(error))
        if not isinstance(error, FailedRunError) or job.split != "test":
            return
        if error.record is not None:
            self._result.keep_failed(error.record, job.request.out)
        elif error.reason is not None:
            self._result.unbuilt.append((job, error.reason))


def _slice_seconds(job: Job) -> float:
    """Long enough that switching costs nothing, short enough that both arms see the same
    machine."""
    budget = Budget.parse(job.budget)
    return min(4.0, max(0.25, budget.limit / 16)) if budget.kind == "seconds" else 2.0


def _timing_seconds(job: Job) -> float:
    """Timing rounds take about a seventh of a short budget and four seconds an arm of a long
    one."""
    budget = Budget.parse(job.budget)
    return min(0.5, max(0.1, budget.limit / 120)) if budget.kind == "seconds" else 0.25
