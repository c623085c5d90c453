"""Workers that share the machine: started together, prepared one by one, trained in turn, timed in
alternation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from equivbench.budget import Budget
from equivbench.errors import EquivbenchError, UsageError
from equivbench.execution.interrupt import Interrupt
from equivbench.execution.protocol import Prepare, Ready, Slice, Standing, Time
from equivbench.execution.state import locked, open_state
from equivbench.execution.watching import Watcher
from equivbench.execution.workers import Worker
from equivbench.training.job import Job

TIMING_ROUNDS = 8
"""Alternated timing rounds an arm: enough that a disturbance of seconds cannot hit one arm only
(notes/harness.md)."""


class Race:
    """One worker an arm. A worker that fails leaves the race, and the others go on without it.

    As a context manager it leaves no worker behind. ``miss`` is told of every failure but usage
    errors, which end the race: they are wrong for every arm.
    """

    def __init__(
        self, watcher: Watcher, interrupt: Interrupt, miss: Callable[[EquivbenchError], None]
    ) -> None:
        self.alive: list[Worker] = []
        self.watcher = watcher
        self._interrupt = interrupt
        self._miss = miss
        self._standings: dict[str, Standing] = {}
        self._locks = contextlib.ExitStack()

    def __enter__(self) -> Race:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for worker in list(self.alive):
            # A second Ctrl-C means now: what the last checkpoints hold is what is kept.
            if kind is not None and issubclass(kind, KeyboardInterrupt):
                worker.kill()
            self.leave(worker)
        self._locks.close()

    def start(self, jobs: Sequence[Job]) -> None:
        """A worker for each job; they import at once and prepare (compile) one after the other."""
        self.watcher.phase("loading")
        with self._interrupt.at_once():
            for job in jobs:
                try:
                    lock = self._locks.enter_context(locked(job))
                    open_state(job)
                    worker = Worker(job, self.watcher.note, keep_open=(lock,))
                except UsageError:
                    raise
                except EquivbenchError as error:
                    self._miss(error)
                    continue
                self.alive.append(worker)
                self.attempt(worker, Worker.begin)
            for worker in list(self.alive):
                self.attempt(worker, _arrive)
            self.watcher.phase("preparing")
            for worker in list(self.alive):
                self.attempt(
                    worker, lambda worker: self.note(worker, worker.ask(Prepare(), Standing))
                )

    def train(self) -> None:
        """Slices in the order A B B A until every arm is done, so that what disturbs the machine
        hits both."""
        self.watcher.phase("training")
        order = list(self.alive)
        while any(self._running(worker) for worker in order) and not self._interrupt.asked:
            for worker in order:
                if self._running(worker) and not self._interrupt.asked:
                    self._take_turn(worker, Slice(_slice_seconds(Budget.parse(worker.job.budget))))
            order.reverse()

    def time(self) -> list[str]:
        """Alternated rounds of real steps, off the budget; returns the arms timed (a diverged one
        has no step worth it)."""
        self.watcher.phase("timing")
        order = [worker for worker in self.alive if self.standing(worker).diverged is None]
        for _ in range(TIMING_ROUNDS):
            for worker in order:
                if worker in self.alive and not self._interrupt.asked:
                    self._take_turn(worker, Time(_round_seconds(Budget.parse(worker.job.budget))))
            order.reverse()
        return [worker.job.arm for worker in order if worker in self.alive]

    def standing(self, worker: Worker) -> Standing:
        """How far ``worker`` was when it last said so."""
        return self._standings[worker.job.arm]

    def note(self, worker: Worker, standing: Standing) -> None:
        """``worker`` is at ``standing``."""
        self._standings[worker.job.arm] = standing
        self.watcher.show(worker.job, standing)

    def attempt(self, worker: Worker, act: Callable[[Worker], None]) -> None:
        """Do ``act``; a worker that fails at it leaves the race."""
        if worker not in self.alive:
            return
        try:
            act(worker)
        except UsageError:
            raise
        except EquivbenchError as error:
            self._miss(error)
            self.leave(worker)

    def leave(self, worker: Worker) -> None:
        """End ``worker``; one that is still loading has nothing to save."""
        self.alive.remove(worker)
        if worker.job.arm in self._standings:
            worker.stop()
        else:
            worker.kill()

    def _running(self, worker: Worker) -> bool:
        return worker in self.alive and not self.standing(worker).finished

    def _take_turn(self, worker: Worker, command: Slice | Time) -> None:
        def turn(worker: Worker) -> None:
            with self._interrupt.ending(worker):
                self.note(
                    worker, worker.take_turn(command, lambda standing: self.note(worker, standing))
                )

        self.attempt(worker, turn)


def _arrive(worker: Worker) -> None:
    worker.answer(Ready)


def _slice_seconds(budget: Budget) -> float:
    """Long enough that switching costs nothing, short enough that both arms see the same
    machine."""
    return min(4.0, max(0.25, budget.limit / 16)) if budget.kind == "seconds" else 2.0


def _round_seconds(budget: Budget) -> float:
    """Timing rounds take about a seventh of a short budget and four seconds an arm of a long
    one."""
    return min(0.5, max(0.1, budget.limit / 120)) if budget.kind == "seconds" else 0.25
