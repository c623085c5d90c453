"""Tunes both arms of a pair with equal trials: the same grid, budget and seed, judged on the
validation split."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from equivbench.budget import Budget
from equivbench.environment import cache_dir
from equivbench.errors import EquivbenchError, FailedError, UsageError, unknown_name
from equivbench.execution.grid import Grid, Point, Side, best_point, first_grid
from equivbench.execution.interrupt import Interrupt
from equivbench.execution.plan import default_threads, resolve_device
from equivbench.execution.protocol import Standing
from equivbench.execution.race import Race
from equivbench.execution.triallog import Trial, TrialLog
from equivbench.execution.watching import Nobody
from equivbench.registry import PAIRS
from equivbench.specs import ArmSpec, PairSpec
from equivbench.training.job import Job

_TUNED = ("learning_rate", "batch_size", "tuned_at", "tuning_log_sha256")
_DEFAULT_SHARE = 3
"""Trials take this part of the preset's budget by default."""


@dataclass(frozen=True)
class TuneRequest:
    """What ``equivbench tune`` was asked for."""

    pair: str
    trials: int
    preset: str = "small"
    budget: str | None = None
    seed: int = 1000
    """Not among the seeds that results are reported for."""
    device: str = "auto"
    threads: int | None = None
    jobs: int = 1
    extensions: int = 6
    """Most steps by which the grid may grow."""
    out: str = "results"
    fresh: bool = False


@dataclass(frozen=True)
class Tuned:
    """What came of a tuning: the grid searched, each arm's best trial, and the arms whose best lies
    at an edge still."""

    grid: Grid
    best: dict[str, Trial | None]
    at_edge: dict[str, list[Side]]
    log: Path
    sha256: str
    budget: str


class Study:
    """The trials of a pair, run as the grid asks for them; those in the log already are not
    repeated."""

    def __init__(self, request: TuneRequest, say: Callable[[str], None]) -> None:
        self.request = request
        self._say = say
        self.pair: PairSpec = PAIRS.get(request.pair)
        if request.preset not in self.pair.presets:
            raise unknown_name(f"preset of {request.pair}", request.preset, self.pair.presets)
        self.budget = (
            Budget.parse(request.budget) if request.budget is not None else self._default_budget()
        )
        if not 1 <= request.jobs <= 64:
            raise UsageError(f"--jobs must be between 1 and 64, not {request.jobs}")
        if request.jobs > 1 and self.budget.kind == "seconds":
            raise UsageError(
                "--jobs above 1 needs a budget in steps or samples: trials that share the machine share its seconds"
            )
        self.device = resolve_device(request.device)
        self.threads = (
            request.threads
            if request.threads is not None
            else 1
            if request.jobs > 1
            else default_threads()
        )
        if self.threads < 1:
            raise UsageError(f"--threads must be at least 1, not {self.threads}")
        self._writing = threading.Lock()
        path = (
            Path(request.out)
            / "tuning"
            / self.pair.task
            / f"{self.pair.name}-{request.preset}.jsonl"
        )
        recipes = [arm.presets[request.preset].recipe for arm in self.pair.contestants]
        self.first = first_grid(
            [r.learning_rate for r in recipes], [r.batch_size for r in recipes], request.trials
        )
        if request.fresh:
            path.unlink(missing_ok=True)
        self.log = TrialLog(path)
        for arm in self.pair.contestants:
            self.log.require_same_study(
                self._trial(arm, (1.0, 1), Standing(0, 0, 1, finished=True))
            )

    def tune(self) -> Tuned:
        """Search the grid, and grow it for every arm alike while an arm's best lies at its edge."""
        grid = self.first
        left = self.request.extensions
        with Interrupt() as interrupt:
            while True:
                self._run(grid, interrupt)
                sides = list(
                    dict.fromkeys(
                        side for arm in self.pair.contestants for side in self._edges(grid, arm)
                    )
                )[:left]
                if not sides:
                    break
                for side in sides:
                    self._say(
                        f"an arm's best trial is at the {side} edge of the grid, which grows by a step there for every arm"
                    )
                    grid = grid.extended(side)
                left -= len(sides)
        best = {arm.name: self._best(grid, arm) for arm in self.pair.contestants}
        at_edge = {arm.name: self._edges(grid, arm) for arm in self.pair.contestants}
        return Tuned(grid, best, at_edge, self.log.path, self.log.sha256(), self.budget.text)

    def _default_budget(self) -> Budget:
        budget = Budget.parse(self.pair.presets[self.request.preset].budget)
        return budget.times(1 / _DEFAULT_SHARE)

    def _best(self, grid: Grid, arm: ArmSpec) -> Trial | None:
        trials = {
            trial.point: trial
            for trial in self.log.trials
            if trial.arm == arm.name and trial.point in grid.points
        }
        point = best_point({point: trial.total for point, trial in trials.items()})
        return None if point is None else trials[point]

    def _edges(self, grid: Grid, arm: ArmSpec) -> list[Side]:
        best = self._best(grid, arm)
        return [] if best is None else grid.edges(best.point)

    def _run(self, grid: Grid, interrupt: Interrupt) -> None:
        done = {(trial.arm, trial.point) for trial in self.log.trials}
        todo = [
            (point, [arm for arm in self.pair.contestants if (arm.name, point) not in done])
            for point in grid.points
        ]
        if self.request.jobs == 1:
            for point, arms in todo:
                self._race(point, arms, 0, interrupt)
            return
        free = list(range(self.request.jobs))

        def run(point: Point, arm: ArmSpec) -> None:
            lane = free.pop()
            try:
                self._race(point, [arm], lane, interrupt)
            finally:
                free.append(lane)

        with ThreadPoolExecutor(self.request.jobs) as pool:
            futures = [pool.submit(run, point, arm) for point, arms in todo for arm in arms]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _race(self, point: Point, arms: Sequence[ArmSpec], lane: int, interrupt: Interrupt) -> None:
        """Train ``arms`` at ``point``, in turn by slices, and log how each did."""
        if not arms:
            return
        problems: list[EquivbenchError] = []
        with Race(Nobody(), interrupt, problems.append) as race:
            race.start([self._job(arm, point, lane) for arm in arms])
            race.train()
            if interrupt.asked:
                raise KeyboardInterrupt
            if problems:
                raise FailedError(
                    f"a trial failed: {problems[0]}; the same command goes on with the trials that are left"
                )
            for worker, arm in zip(race.alive, arms, strict=True):
                trial = self._trial(arm, point, race.standing(worker))
                with self._writing:
                    self.log.add(trial)
                    self._say(_line(trial))

    def _job(self, arm: ArmSpec, point: Point, lane: int) -> Job:
        folder = (
            cache_dir()
            / "tuning"
            / self.pair.task
            / f"{self.pair.name}-{self.request.preset}-{arm.name}-{lane}"
        )
        return Job(
            pair=self.request.pair,
            arm=arm.name,
            preset=self.request.preset,
            budget=self.budget.text,
            seed=self.request.seed,
            run_id=f"trial-{point[0]:g}-{point[1]}",
            created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            command=f"equivbench tune {self.request.pair} --trials {self.request.trials}",
            out=self.request.out,
            state_dir=str(folder),
            device=self.device,
            threads=self.threads,
            recipe={"learning_rate": point[0], "batch_size": point[1]},
            split="validation",
        )

    def _trial(self, arm: ArmSpec, point: Point, standing: Standing) -> Trial:
        sized = arm.presets[self.request.preset]
        samples, rate = standing.step * point[1], standing.samples_per_second
        diverged = standing.diverged is not None
        trial = Trial(
            pair=self.request.pair,
            arm=arm.name,
            preset=self.request.preset,
            learning_rate=point[0],
            batch_size=point[1],
            seed=self.request.seed,
            budget=self.budget.text,
            device=self.device,
            threads=self.threads,
            status="diverged" if diverged else "completed",
            reason=standing.diverged,
            total=None if diverged else standing.total,
            explained=None if diverged else standing.explained,
            share=None if diverged else standing.share,
            steps=standing.step,
            seconds=samples / rate if rate else None,
            config=dict(sized.config),
            recipe={
                name: value for name, value in asdict(sized.recipe).items() if name not in _TUNED
            },
        )
        # As it will be read back: tuples become lists in JSON.
        return msgspec.json.decode(msgspec.json.encode(trial), type=Trial)


def recipe_lines(tuned: Tuned) -> list[str]:
    """The fields that go into each arm's recipe in the pair's file."""
    lines = []
    for arm, trial in tuned.best.items():
        if trial is None:
            lines.append(f"{arm}: no trial completed, so there is nothing to put into its recipe")
            continue
        fields = f'learning_rate={trial.learning_rate!r}, batch_size={trial.batch_size}, tuned_at="{tuned.budget}"'
        lines.append(f'{arm}: {fields}, tuning_log_sha256="{tuned.sha256}"')
    return lines


def _line(trial: Trial) -> str:
    how = "diverged" if trial.total is None else f"total {trial.total:.4g}"
    more = "" if trial.explained is None else f", explained {trial.explained:.3f}"
    return f"{trial.arm}: rate {trial.learning_rate:g}, batch {trial.batch_size}: {how}{more} in {trial.steps} steps"
