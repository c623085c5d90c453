"""The executor ``local``: the contests of a plan on this machine, one after the other or a few at
a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from equivbench.execution.contest import run_contest
from equivbench.execution.executors import Callback, RunResult
from equivbench.execution.interrupt import Interrupt
from equivbench.execution.machine import check_writable, this_machine
from equivbench.execution.plan import Contest, RunPlan
from equivbench.execution.state import on_machine


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
                    run_contest(contest, plan.request.extend, callback, result, interrupt)

            try:
                if plan.side_by_side == 1:
                    for contest in plan.contests:
                        run(contest)
                else:
                    _side_by_side(plan, run)
            except KeyboardInterrupt:
                interrupt.asked = True
            result.interrupted = interrupt.asked
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
