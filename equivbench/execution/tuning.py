"""Tunes both arms of a pair with equal trials: the same grid, budget and seed, judged on the
validation split."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import ClassVar

import msgspec

from equivbench.errors import FailedError, UsageError, unknown_name
from equivbench.execution.executors import Callback, find_executor
from equivbench.execution.plan import Machine, RunPlan, default_threads, make_plan
from equivbench.execution.trials import (
    Edge,
    Point,
    SearchGrid,
    Trial,
    TrialLog,
    best_point,
    first_grid,
)
from equivbench.registry import PAIRS
from equivbench.request import Budget, Request, RunRequest, option, same_option
from equivbench.specs import ArmSpec, PairSpec, Preset
from equivbench.training.job import Job, Progress

_TUNED = ("learning_rate", "batch_size", "tuned_at", "tuning_log_sha256")
_BUDGET_PART = 3
"""A trial takes this part of the preset's budget by default."""
_MAX_JOBS = 64


@dataclass(frozen=True, kw_only=True)
class TuneRequest(Request):
    """What ``equivbench tune`` is asked for."""

    program: ClassVar[tuple[str, ...]] = ("tune",)

    pair: str = option(
        MISSING, "The pair, as task/pair, e.g. forcefield/vector.", flag=None, metavar="PAIR"
    )
    trials: int = option(
        12,
        "How many trials each arm gets: at least 4 learning rates times 1 to 3 batch sizes.",
        always=True,
    )
    preset: Preset = same_option(RunRequest, "preset")
    budget: str | None = option(
        None, "The budget of each trial. The default is a third of the preset's."
    )
    seed: int = option(
        1000, "The seed of every trial; it should not be one that results are reported for."
    )
    device: str = same_option(RunRequest, "device")
    threads: int | None = option(
        None,
        "How many CPU threads a trial uses. The default is one for each physical core, and 1 with "
        "--jobs.",
    )
    jobs: int = option(
        1,
        "How many trials run at once. With more than one the budget must be in steps or samples.",
    )
    extensions: int = option(
        6, "By how many steps the grid may grow until no optimum lies at its edge."
    )
    executor: str = same_option(RunRequest, "executor")
    out: str = option(
        "results", "The results folder; the log goes to its folder tuning.", recorded=False
    )
    fresh: bool = option(False, "Discard the log of an earlier tuning.", recorded=False)


@dataclass(frozen=True)
class Tuned:
    """What came of a tuning: the grid searched, each arm's best trial, and the arms whose best lies
    at an edge still."""

    grid: SearchGrid
    best: dict[str, Trial | None]
    at_edge: dict[str, list[Edge]]
    log: Path
    sha256: str
    budget: str


class Study(Callback):
    """The trials of a pair, run as the grid asks for them; those in the log already are not
    repeated. ``say`` is told each trial as it ends, and each growth of the grid."""

    def __init__(self, request: TuneRequest, say: Callable[[str], None]) -> None:
        self.request = request
        self._say = say
        self._writing = threading.Lock()
        self.pair: PairSpec = PAIRS.get(request.pair)
        if request.preset not in self.pair.presets:
            raise unknown_name(f"preset of {request.pair}", request.preset, self.pair.presets)
        preset = self.pair.presets[request.preset]
        self.budget = (
            Budget.parse(preset.budget).times(1 / _BUDGET_PART)
            if request.budget is None
            else Budget.parse(request.budget)
        )
        side_by_side = request.jobs > 1
        if not 1 <= request.jobs <= _MAX_JOBS:
            raise UsageError(f"--jobs must be between 1 and {_MAX_JOBS}, not {request.jobs}")
        if side_by_side and self.budget.kind == "seconds":
            raise UsageError(
                "--jobs above 1 needs a budget in steps or samples: "
                "trials that share the machine share its seconds"
            )
        shared = {name: getattr(request, name) for name in ("preset", "device", "out", "executor")}
        threads = 1 if request.threads is None and side_by_side else request.threads
        run = RunRequest(
            pairs=(request.pair,),
            budget=self.budget.text,
            seeds=(request.seed,),
            threads=threads,
            **shared,
        )
        self._executor = find_executor(request.executor)
        self._plan = self._executor.resolve(make_plan(run))
        self.machine = self._plan.machine or Machine(request.device, default_threads())
        path = Path(request.out) / "tuning" / self.pair.task
        path = path / f"{self.pair.name}-{request.preset}.jsonl"
        recipes = [arm.presets[request.preset].recipe for arm in self.pair.contestants]
        self._first_grid = first_grid(
            [recipe.learning_rate for recipe in recipes],
            [recipe.batch_size for recipe in recipes],
            request.trials,
        )
        if request.fresh:
            path.unlink(missing_ok=True)
        self.log = TrialLog(path)
        nothing_yet = Progress(step=0, spent=0.0, limit=1.0, finished=True)
        for arm in self.pair.contestants:
            self.log.require_same_study(self._trial(arm, (1.0, 1), nothing_yet))

    def tune(self) -> Tuned:
        """Search the grid, and grow it for every arm alike while an arm's best lies at its edge.

        Raises
        ------
        FailedError
            Where a trial fails; those that ended are in the log.
        KeyboardInterrupt
            After Ctrl-C, once the trial under way has ended.
        """
        grid = self._first_grid
        left = self.request.extensions
        while True:
            self._run(grid)
            best = {arm.name: self._best(grid, arm.name) for arm in self.pair.contestants}
            at_edge = {
                arm: [] if trial is None else grid.edges(trial.point) for arm, trial in best.items()
            }
            growing = list(dict.fromkeys(chain.from_iterable(at_edge.values())))[:left]
            if not growing:
                path, digest = self.log.path, self.log.sha256()
                return Tuned(grid, best, at_edge, path, digest, self.budget.text)
            for edge in growing:
                self._say(
                    f"an arm's best trial is at the {edge} edge of the grid, "
                    "which grows by a step there for every arm"
                )
                grid = grid.extended(edge)
            left -= len(growing)

    def _best(self, grid: SearchGrid, arm: str) -> Trial | None:
        trials = {
            trial.point: trial
            for trial in self.log.trials
            if trial.arm == arm and trial.point in grid.points
        }
        point = best_point({point: trial.total for point, trial in trials.items()})
        return None if point is None else trials[point]

    def _run(self, grid: SearchGrid) -> None:
        """Run the trials of ``grid`` that are not in the log."""
        done = {(trial.arm, trial.point) for trial in self.log.trials}
        (declared,) = self._plan.contests
        contests = []
        for rate, batch in grid.points:
            jobs = [
                msgspec.structs.replace(
                    job,
                    run_id=f"trial-{rate:g}-{batch}",
                    command=self.request.command(recorded=True),
                    recipe={"learning_rate": rate, "batch_size": batch},
                    split="validation",
                )
                for job in declared.jobs
                if (job.arm, (rate, batch)) not in done
            ]
            # One after the other both arms of a point share the machine in turn; side by side each
            # trial is a contest of its own.
            together = [[job] for job in jobs] if self.request.jobs > 1 else [jobs]
            contests += [replace(declared, jobs=tuple(each)) for each in together if each]
        if not contests:
            return
        plan = RunPlan(self._plan.request, tuple(contests), side_by_side=self.request.jobs)
        result = self._executor.run(self._executor.resolve(plan), self)
        if result.interrupted:
            raise KeyboardInterrupt
        if result.failures:
            raise FailedError(
                f"a trial failed: {result.failures[0]}; "
                "the same command goes on with the trials that are left"
            )

    def _trial(self, arm: ArmSpec, point: Point, progress: Progress) -> Trial:
        sized = arm.presets[self.request.preset]
        samples, rate = progress.step * point[1], progress.samples_per_second
        diverged = progress.diverged is not None
        names = ("total", "explained", "share")
        recipe = {name: value for name, value in asdict(sized.recipe).items() if name not in _TUNED}
        trial = Trial(
            pair=self.request.pair,
            arm=arm.name,
            preset=self.request.preset,
            learning_rate=point[0],
            batch_size=point[1],
            seed=self.request.seed,
            budget=self.budget.text,
            device=self.machine.device,
            threads=self.machine.threads,
            status="diverged" if diverged else "completed",
            reason=progress.diverged,
            **{name: None if diverged else getattr(progress, name) for name in names},
            steps=progress.step,
            seconds=samples / rate if rate else None,
            config=dict(sized.config),
            recipe=recipe,
        )
        # As it will be read back: tuples become lists in JSON.
        return msgspec.json.decode(msgspec.json.encode(trial), type=Trial)

    def trained(self, job: Job, progress: Progress) -> None:
        """Log the trial ``job``, which ended as ``progress`` says, so that an interruption loses
        none that is over; trials side by side end in threads of their own."""
        point = (job.recipe["learning_rate"], job.recipe["batch_size"])
        trial = self._trial(self.pair.arm(job.arm), point, progress)
        result = "diverged" if trial.total is None else f"total {trial.total:.4g}"
        more = "" if trial.explained is None else f", explained {trial.explained:.3f}"
        with self._writing:
            self.log.add(trial)
            self._say(
                f"{trial.arm}: rate {trial.learning_rate:g}, batch {trial.batch_size}: "
                f"{result}{more} in {trial.steps} steps"
            )


def recipe_lines(tuned: Tuned) -> list[str]:
    """The fields that go into each arm's recipe in the pair's file."""
    lines = []
    for arm, trial in tuned.best.items():
        if trial is None:
            lines.append(f"{arm}: no trial completed, so there is nothing to put into its recipe")
            continue
        chosen = f"learning_rate={trial.learning_rate!r}, batch_size={trial.batch_size}"
        lines.append(
            f'{arm}: {chosen}, tuned_at="{tuned.budget}", tuning_log_sha256="{tuned.sha256}"'
        )
    return lines
