"""How long runs and analyses will take, from what runs like them took: here before, else on the two
cores of `results/`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median

from equivbench.budget import Budget
from equivbench.execution.plan import Contest, Plan, estimated_seconds
from equivbench.records.schema import RunRecord
from equivbench.studies.claims.parts import Kind
from equivbench.studies.record import RunAnalysis
from equivbench.training.job import Job

START_SECONDS = 10.0
"""Imports, data and first steps of a contest's workers, which no run's clock counts."""
OFF_BUDGET: Mapping[str, float] = {
    "forcefield/vector": 18.0,
    "forcefield/tied-head": 23.0,
    "forcefield/tensor-product": 24.0,
    "forcefield/tensor-product-parameters": 24.0,
    "flow/vector-head": 34.0,
    "flow/frames": 33.0,
    "voxel/octahedral": 75.0,
    "voxel/steerable": 54.0,
}
"""Wall seconds beyond the budget of an arm of the preset ``small`` (evaluations, timing rounds,
checkpoints): means of ``clock.wall - budget.spent`` over the records of two cores in `results/`; 60
s an arm, 30 s of tensor-product-parameters."""
ANALYSIS_SECONDS: Mapping[Kind, Mapping[str, float]] = {
    "gradients": {
        "forcefield/vector": 16.0,
        "forcefield/tied-head": 36.0,
        "forcefield/tensor-product": 55.0,
        "forcefield/tensor-product-parameters": 25.0,
        "flow/vector-head": 75.0,
        "flow/frames": 70.0,
        "voxel/octahedral": 30.0,
        "voxel/steerable": 75.0,
    },
    "landscape": dict.fromkeys(OFF_BUDGET, 160.0) | {"flow/vector-head": 115.0},
}
"""Of one run of the preset ``small`` on the same two cores: two of the gradients and three of the
landscapes as timed in a whole `reproduce`, with the start of the command; the others from what they
have in common with these."""
STEP_SECONDS: Mapping[str, float] = {
    "forcefield/vector": 0.040,
    "forcefield/tied-head": 0.059,
    "forcefield/tensor-product": 0.042,
    "forcefield/tensor-product-parameters": 0.025,
    "flow/vector-head": 0.092,
    "flow/frames": 0.088,
    "voxel/octahedral": 0.16,
    "voxel/steerable": 0.24,
}
"""Budget seconds a step, means over both arms of the same records."""


class Experience:
    """What runs and analyses took that are on disk already.

    ``records`` and ``analyses`` count where they come from this machine (``machine_key``) and are
    of the preset.
    """

    def __init__(
        self,
        machine_key: str,
        preset: str,
        records: Iterable[RunRecord] = (),
        analyses: Iterable[tuple[Kind, RunAnalysis]] = (),
    ) -> None:
        self._preset = preset
        self._runs: dict[tuple[str, str], list[RunRecord]] = {}
        for record in records:
            # A sweep's points differ in size; a resumed run's clock holds work done twice.
            own = (
                record.environment.machine_key == machine_key
                and record.preset == preset
                and record.status == "completed"
            )
            if own and "sweep" not in record.variant and not record.restarts:
                self._runs.setdefault((f"{record.task}/{record.pair}", record.arm), []).append(
                    record
                )
        self._analyses: dict[tuple[Kind, str], list[float]] = {}
        for kind, analysis in analyses:
            if analysis.environment.machine_key == machine_key and analysis.preset == preset:
                self._analyses.setdefault((kind, f"{analysis.task}/{analysis.pair}"), []).append(
                    analysis.seconds
                )

    def of_plan(self, plan: Plan, todo: Sequence[Job]) -> float | None:
        """Wall seconds of the jobs of ``plan`` that are in ``todo``; None where a budget's seconds
        cannot be known."""
        wanted = {job.state_dir for job in todo}
        contests = [
            replace(each, jobs=tuple(job for job in each.jobs if job.state_dir in wanted))
            for each in plan.contests
        ]
        known = [self._of_contest(plan, contest) for contest in contests if contest.jobs]
        return None if None in known else sum(seconds for seconds in known if seconds is not None)

    def of_analysis(self, kind: Kind, pair: str, device: str) -> float | None:
        """Wall seconds of one analysis; None where none like it was made."""
        made = self._analyses.get((kind, pair))
        if made:
            return median(made)
        return (
            ANALYSIS_SECONDS[kind].get(pair)
            if self._preset == "small" and device == "cpu"
            else None
        )

    def _of_contest(self, plan: Plan, contest: Contest) -> float | None:
        parts = [self._of_job(job, plan.device) for job in contest.jobs]
        if None in parts:
            return estimated_seconds(replace(plan, contests=(contest,)))
        return START_SECONDS + sum(seconds for seconds in parts if seconds is not None)

    def _of_job(self, job: Job, device: str) -> float | None:
        budget, like = Budget.parse(job.budget), self._runs.get((job.pair, job.arm), [])
        if like:
            beyond = median(
                record.clock.wall - record.clock.train - record.clock.data for record in like
            )
        elif self._preset == "small" and device == "cpu" and job.pair in OFF_BUDGET:
            beyond = OFF_BUDGET[job.pair]
        else:
            return None
        spent = _seconds(budget, like)
        if (
            spent is None
            and budget.kind == "steps"
            and self._preset == "small"
            and device == "cpu"
            and job.pair in STEP_SECONDS
        ):
            spent = budget.limit * STEP_SECONDS[job.pair]
        return None if spent is None else spent + beyond


def _seconds(budget: Budget, like: Sequence[RunRecord]) -> float | None:
    """Device seconds that ``budget`` stands for, at the pace of runs like it."""
    if budget.kind == "seconds":
        return budget.limit
    done = [(record.steps if budget.kind == "steps" else record.samples, record) for record in like]
    paces = [(record.clock.train + record.clock.data) / count for count, record in done if count]
    return budget.limit * median(paces) if paces else None
