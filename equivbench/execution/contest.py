"""The executor ``local``: contests on this machine, whose workers are trained in turn, timed in
alternation and recorded."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec

from equivbench.budget import Budget
from equivbench.errors import EquivbenchError, FailedError, UsageError
from equivbench.execution.executors import Callback, KeptRecord, RunResult
from equivbench.execution.interrupt import Interrupt, WhileHeard
from equivbench.execution.messages import (
    Conclude,
    Concluded,
    Extend,
    Prepare,
    Ready,
    Slice,
    Time,
)
from equivbench.execution.plan import Contest, RunPlan, check_writable, extension, this_machine
from equivbench.execution.state import finished_record, on_machine, remember_record
from equivbench.execution.unbuilt import unbuilt_record
from equivbench.execution.workers import FailedRunError, WorkerProcess
from equivbench.records.store import read_record, write_record
from equivbench.records.weight_files import put_beside, weights_beside
from equivbench.training.job import Job, Progress

TIMING_ROUNDS = 8
"""Alternated timing rounds an arm: enough that a disturbance of seconds cannot hit one arm only
(notes/harness.md)."""


class ContestRun:
    """A contest on this machine: its workers, one an arm, have the machine in turn.

    A worker that fails leaves, and the others go on without it; usage errors end the contest, since
    they are wrong for every arm. Jobs that have a record already are not repeated. ``result`` gets
    the records and the failures; once ``interrupt`` is asked for, turns end, and what is known is
    saved and recorded.
    """

    def __init__(
        self, contest: Contest, callback: Callback, result: RunResult, interrupt: Interrupt
    ) -> None:
        self._contest = contest
        self._callback = WhileHeard(callback)
        self._result = result
        self._interrupt = interrupt
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
            todo = [job for job in self._contest.jobs if not self._has_record(job)]
            self._train(todo)
            if extend is not None and not self._interrupt.asked:
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
        self._callback.phase("loading")
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
            self._callback.phase("preparing")
            for worker in list(self._alive):
                self._attempt(worker, lambda each: self._show(each, each.ask(Prepare(), Progress)))

    def _take_turns(self) -> None:
        """Slices in the order A B B A until every arm is done, so that what disturbs the machine
        hits both."""
        self._callback.phase("training")
        order = list(self._alive)
        while any(self._is_running(worker) for worker in order) and not self._interrupt.asked:
            for worker in order:
                if self._is_running(worker) and not self._interrupt.asked:
                    self._take_turn(worker, Slice(_slice_seconds(worker.job)))
            order.reverse()

    def _time(self) -> list[str]:
        """Alternated rounds of real steps, off the budget. Returns the arms that were timed: a
        diverged one has no step worth it."""
        self._callback.phase("timing")
        order = [each for each in self._alive if self._progress[each.job.arm].diverged is None]
        for _ in range(TIMING_ROUNDS):
            for worker in order:
                if worker in self._alive and not self._interrupt.asked:
                    self._take_turn(worker, Time(_timing_seconds(worker.job)))
            order.reverse()
        return [worker.job.arm for worker in order if worker in self._alive]

    def _is_running(self, worker: WorkerProcess) -> bool:
        return worker in self._alive and not self._progress[worker.job.arm].finished

    def _take_turn(self, worker: WorkerProcess, command: Slice | Time) -> None:
        def turn(worker: WorkerProcess) -> None:
            with self._interrupt.ending(worker.end_turn):
                self._show(worker, worker.take_turn(command, partial(self._show, worker)))

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
        self._callback.phase("saving" if self._interrupt.asked else "measuring")
        for worker in list(self._alive):
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
            raise FailedRunError(
                why, msgspec.structs.replace(concluded.record, status="failed", reason=why)
            )
        path = write_record(concluded.record, worker.job.request.out)
        self._keep(worker.job, KeptRecord(concluded.record, path, Path(concluded.checkpoint)))
        remember_record(worker.job, path)

    def _has_record(self, job: Job) -> bool:
        """Whether an earlier run of ``job`` came to its end; its record is kept, not repeated."""
        path = finished_record(job) if job.request.resume else None
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
        """Note a failure of ``job``, and keep the record of a run that failed on its way."""
        if str(error) not in self._result.failures:
            self._result.failures.append(str(error))
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


class LocalExecutor:
    """Runs plans in worker processes of this machine."""

    def resolve(self, plan: RunPlan) -> RunPlan:
        """``plan`` with this machine's device, threads and state folders."""
        return on_machine(plan, this_machine(plan.request))

    def run(self, plan: RunPlan, callback: Callback) -> RunResult:
        """Run every contest of ``plan`` here; Ctrl-C ends the contest under way and the plan."""
        check_writable(plan.request.out)
        result = RunResult()
        with Interrupt() as interrupt:

            def run(contest: Contest) -> None:
                if not interrupt.asked:
                    ContestRun(contest, callback, result, interrupt).run(plan.request.extend)

            try:
                if plan.side_by_side == 1:
                    for contest in plan.contests:
                        run(contest)
                else:
                    _side_by_side(plan, run)
            except KeyboardInterrupt:
                interrupt.asked = True
            result.interrupted = interrupt.asked
        # What was told to stop has not failed.
        for job, why in [] if result.interrupted else result.unbuilt:
            record = unbuilt_record(job, why, [kept.record for kept in result.kept])
            if record is not None:
                result.keep_failed(record, plan.request.out)
        return result


def _side_by_side(plan: RunPlan, run: Callable[[Contest], None]) -> None:
    """``run`` the contests of ``plan`` in threads, each of which waits for its workers."""
    with ThreadPoolExecutor(plan.side_by_side) as pool:
        futures = [pool.submit(run, contest) for contest in plan.contests]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
