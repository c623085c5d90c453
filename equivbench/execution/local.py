"""The executor ``local``: the units of a plan in worker processes of this machine, one after the
other, or side by side on several of its devices."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from equivbench.errors import FailedError, UsageError
from equivbench.execution.contest import ContestRun
from equivbench.execution.executors import Callback, RunResult
from equivbench.execution.interrupt import Interrupt
from equivbench.execution.leases import local_owner
from equivbench.execution.plan import Contest, Machine, RunPlan, check_writable, machines_of
from equivbench.execution.planned import PlanFolder, Unit
from equivbench.execution.state import on_machine, on_machines
from equivbench.execution.unit import LOOK_AGAIN_SECONDS, record_unbuilt, run_unit

_WAITS = (
    "other processes are at work on contests of this plan: those are left to them, and waited for"
)
_LEAST_PAUSE = 0.02
"""Seconds between two looks at what others are at work on, of however many contests."""
Work = Callable[[Machine], bool]
"""Something to be done on a device; False where it cannot be done yet."""


class LocalExecutor:
    """Runs plans in worker processes of this machine."""

    def resolve(self, plan: RunPlan) -> RunPlan:
        """``plan`` with this machine's devices, threads and state folders.

        Raises ``UsageError`` for options that are meant for a cluster.
        """
        request = plan.request
        for option, asked in (
            ("--executor-option", request.executor_option),
            ("--workers", request.workers),
            ("--detach", request.detach),
        ):
            if asked:
                raise UsageError(
                    f"{option} is for --executor slurm and ray; --devices cpu:0,cpu:1 runs several "
                    "contests of this machine side by side"
                )
        return on_machines(plan, machines_of(plan.request))

    def script(self, plan: RunPlan) -> str:
        """Nothing: there is no queue."""
        return ""

    def run(self, plan: RunPlan, callback: Callback) -> RunResult:
        """Run every contest of ``plan`` here; Ctrl-C ends the contests under way and the plan.

        A contest that another process is at work on is waited for.
        """
        check_writable(plan.request.out)
        result = RunResult()
        places = (plan.machines or machines_of(plan.request)) * plan.side_by_side
        at_once = min(len(places), len(plan.contests))
        with Interrupt() as interrupt:
            # What is judged on the validation split leaves no record: it is no unit of a plan.
            if all(job.split == "test" for job in plan.jobs):
                folder = PlanFolder(plan.request.out, local_owner())
                works: list[Work] = [
                    _UnitWork(each, folder, callback, result, interrupt, at_once)
                    for each in folder.add(plan.contests)
                ]
            else:
                works = [
                    partial(_run_trial, each, callback, result, interrupt) for each in plan.contests
                ]
            try:
                _do_all(works, places[:at_once], interrupt)
            except KeyboardInterrupt:
                interrupt.asked = True
            result.interrupted = interrupt.asked
        record_unbuilt(result, plan.request.out)
        return result


class _UnitWork:
    """The work on one unit of the plan."""

    def __init__(
        self,
        unit: Unit,
        folder: PlanFolder,
        callback: Callback,
        result: RunResult,
        interrupt: Interrupt,
        at_once: int,
    ) -> None:
        self._unit, self._folder, self._callback = unit, folder, callback
        self._result, self._interrupt, self._at_once = result, interrupt, at_once

    def __call__(self, place: Machine) -> bool:
        """Do it, unless somebody else is at it."""
        try:
            done = run_unit(
                self._unit,
                self._folder,
                place,
                self._callback.beside() if self._at_once > 1 else self._callback,
                self._result,
                self._interrupt,
                beside=self._at_once - 1,
            )
        except FailedError as error:
            # Of its lease or its file: the other contests can go on.
            if str(error) not in self._result.failures:
                self._result.failures.append(f"{self._unit.title}: {error}")
            return True
        if not done and _WAITS not in self._result.notes:
            self._result.notes.append(_WAITS)
            self._callback.note(_WAITS)
        return done


def _run_trial(
    contest: Contest,
    callback: Callback,
    result: RunResult,
    interrupt: Interrupt,
    place: Machine,
) -> bool:
    ContestRun(on_machine(contest, place), callback, result, interrupt).run(None)
    return True


def _do_all(works: Iterable[Work], places: tuple[Machine, ...], interrupt: Interrupt) -> None:
    """Do ``works`` in order, one at a time at each of the ``places``, until all are done or
    ``interrupt`` is asked for. What cannot be done yet is tried again after the others."""
    left = deque(works)

    def work(place: Machine) -> None:
        while left and not interrupt.asked:
            try:
                each = left.popleft()
            except IndexError:  # another place was quicker
                return
            if not each(place):
                left.append(each)
                time.sleep(max(_LEAST_PAUSE, LOOK_AGAIN_SECONDS / max(1, len(left))))

    if len(places) < 2:
        for place in places:
            work(place)
        return
    # Each thread waits for its workers.
    with ThreadPoolExecutor(len(places)) as pool:
        futures = [pool.submit(work, place) for place in places]
        try:
            for future in futures:
                future.result()
        except BaseException:
            left.clear()
            raise
