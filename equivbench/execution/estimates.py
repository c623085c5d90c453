"""How long a plan will take: from finished runs like those it asks for, else from what the pair
declares of itself."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from statistics import median

from equivbench.budget import Budget
from equivbench.errors import FailedError
from equivbench.execution.chosen_data import dataset_of
from equivbench.execution.plan import Contest, RunPlan, machines_of
from equivbench.records.declared import PRECISION
from equivbench.records.schema import RunRecord
from equivbench.records.store import load_results
from equivbench.registry import PAIRS
from equivbench.training.job import Job

START_SECONDS = 10.0
"""Imports, data and first steps of a contest's workers, which no run's clock counts."""
OFF_BUDGET_PART = 0.3
"""Of a budget in seconds: what a run takes beyond it where neither a run nor the pair says."""


def estimated_seconds(plan: RunPlan) -> float | None:
    """Wall seconds of all runs of ``plan``, one contest after the other, as the records in its
    results folder and its pairs say; None where a budget is in steps or samples and nothing tells
    how fast they go."""
    contests = PastRuns(plan, records_in(plan.request.out)).of_contests(plan)
    return wall_seconds(contests, devices=plan.request.devices_per_arm)


def wall_seconds(
    contests: Sequence[float | None], workers: int = 1, devices: int = 1
) -> float | None:
    """How long contests of so many device seconds each take ``workers`` of so many ``devices``
    each, which take one after the other, in order; None where a length is not known."""
    free = [0.0] * max(1, workers)
    for seconds in contests:
        if seconds is None:
            return None
        heapq.heapreplace(free, free[0] + seconds / devices)
    return max(free)


def records_in(folder: str) -> list[RunRecord]:
    """The valid records below ``folder``; none where there is no such folder or it is empty."""
    try:
        return load_results(folder, invalid="warn") if Path(folder).is_dir() else []
    except FailedError:
        return []


class PastRuns:
    """What runs took that are finished: the experience that an estimate rests on.

    Of ``records`` those count that were made on the machine of the plan ``like`` with its preset.
    Points of a sweep differ in size, and the clock of a resumed run holds work that was done twice;
    both are left out.
    """

    def __init__(self, like: RunPlan, records: Iterable[RunRecord] = ()) -> None:
        machine = like.machine
        if machine is None and like.request.executor == "local":
            machine = machines_of(like.request)[0]
        # Of the nodes of a cluster nobody here knows anything: no run was made on this machine.
        self.machine_key = "" if machine is None else machine.kind
        self.preset = like.request.preset
        self._on_cpu = machine is not None and machine.device == "cpu"
        self._runs: dict[tuple[str, str, str, str | None], list[RunRecord]] = {}
        for record in records:
            alike = (
                record.environment.machine_key == self.machine_key
                and record.preset == self.preset
                and record.status == "completed"
            )
            if alike and "sweep" not in record.variant and not record.restarts:
                arm = f"{record.task}/{record.pair}", record.arm, record.dataset.name
                key = *arm, record.variant.get(PRECISION)
                self._runs.setdefault(key, []).append(record)

    def _like(self, job: Job) -> list[RunRecord]:
        """Runs of the arm of ``job`` on its data, in its precision, whatever their budget."""
        key = job.pair, job.arm, dataset_of(job), job.labels.get(PRECISION)
        return self._runs.get(key, [])

    def of_contests(self, plan: RunPlan, todo: Collection[Job] | None = None) -> list[float | None]:
        """The device seconds of those jobs of each contest of ``plan`` that are in ``todo`` (None:
        all), start and evaluations included; None where the length of one cannot be known."""
        wanted = {job.state_dir for job in (plan.jobs if todo is None else todo)}
        found: list[float | None] = []
        for contest in plan.contests:
            jobs = [job for job in contest.jobs if job.state_dir in wanted]
            lengths = [self._of_job(job) for job in jobs]
            known = [length for length in lengths if length is not None]
            if len(known) < len(lengths):
                found.append(None)
                continue
            started = START_SECONDS * bool(jobs) + sum(known)
            found.append(started + self._of_extension(plan, contest, jobs))
        return found

    def declared(self, pair: str, what: str) -> float | None:
        """What ``pair`` says that the work called ``what`` takes; None where it does not, and on
        anything but a CPU, of which the declarations are."""
        seconds = PAIRS.get(pair).seconds.get(self.preset, {})
        return seconds.get(what) if self._on_cpu else None

    def _of_job(self, job: Job) -> float | None:
        budget = Budget.parse(job.budget)
        like = self._like(job)
        spent = self._spent(job, budget, like)
        if spent is None:
            return None
        # Rungs take more of a larger budget.
        same = (budget.kind, budget.limit)
        clocks = [each.clock for each in like if (each.budget.kind, each.budget.limit) == same]
        if clocks:
            return spent + median(each.wall - each.train - each.data for each in clocks)
        declared = self.declared(job.pair, "off_budget")
        if declared is not None:
            return spent + declared
        return spent * (1 + OFF_BUDGET_PART) if budget.kind == "seconds" else None

    def _spent(self, job: Job, budget: Budget, like: Sequence[RunRecord]) -> float | None:
        """Device seconds that ``budget`` stands for, at the pace of runs like it."""
        if budget.kind == "seconds":
            return budget.limit
        done = [(each.steps if budget.kind == "steps" else each.samples, each) for each in like]
        paces = [(each.clock.train + each.clock.data) / count for count, each in done if count]
        if paces:
            return budget.limit * median(paces)
        step = self.declared(job.pair, "step") if budget.kind == "steps" else None
        return None if step is None else budget.limit * step

    def _of_extension(self, plan: RunPlan, contest: Contest, jobs: Sequence[Job]) -> float:
        """The budget that the arm behind trains for on top, once both are finished."""
        if plan.request.extend is None or not jobs:
            return 0.0
        spent = self._spent(jobs[0], contest.budget, self._like(jobs[0]))
        return (1 + OFF_BUDGET_PART) * (plan.request.extend - 1) * (spent or 0.0)
