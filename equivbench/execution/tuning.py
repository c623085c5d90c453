"""Tunes both arms of a pair with equal trials: as many points each of learning rate, batch size and
width, at one budget and with the same seeds, judged on the validation split."""

from __future__ import annotations

import math
import statistics
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from equivbench.counted import counted
from equivbench.errors import FailedError, UsageError, unknown_name
from equivbench.execution.estimates import START_SECONDS, estimated_seconds
from equivbench.execution.executors import Callback, find_executor
from equivbench.execution.plan import Machine, RunPlan, default_threads, make_plan, unique
from equivbench.execution.search import (
    SEARCHED,
    GridPoint,
    Search,
    Setup,
    TrialGrid,
    explore,
    width_factors,
)
from equivbench.execution.trials import TOO_LARGE, Choice, Trial, TrialLog, WidthFor
from equivbench.execution.tune_request import TuneRequest, check_request, trial_budget
from equivbench.registry import PAIRS
from equivbench.request import (
    RunRequest,
    write_number,
)
from equivbench.specs import ArmSpec, PairSpec
from equivbench.training.job import Job, Progress

_TUNED = ("learning_rate", "batch_size", "tuned_at", "tuning_log_sha256")


@dataclass(frozen=True)
class Tuned:
    """What came of a tuning: each arm's choice, or why there is none."""

    choices: dict[str, Choice]
    refused: dict[str, list[str]]
    points: int
    """At which each arm was tried."""
    width: str
    """How the width was chosen, in a sentence."""
    budget: str
    log: Path
    sha256: str
    busy: int
    """How many trials did not have the machine to themselves."""


class Study(Callback):
    """The trials of a pair, run as the search asks for them; those in the log already are not
    repeated. ``say`` is told what is to come, and each trial as it ends."""

    def __init__(self, request: TuneRequest, say: Callable[[str], None]) -> None:
        self.request = request
        self._say = say
        self._writing = threading.Lock()
        self._noted: set[str] = set()
        self._too_large: set[str] = set()
        """What was said of the trials that did not fit, which are no failures of the tuning."""
        self.pair: PairSpec = PAIRS.get(request.pair)
        if request.preset not in self.pair.presets:
            raise unknown_name(f"preset of {request.pair}", request.preset, self.pair.presets)
        self.seeds = tuple(unique(request.seeds))
        self.budget = trial_budget(request, self.pair)
        check_request(request, self.budget)
        threads = 1 if request.threads is None and request.jobs > 1 else request.threads
        run = RunRequest(
            pairs=(request.pair,),
            budget=self.budget.text,
            seeds=self.seeds,
            threads=threads,
            **{
                name: getattr(request, name)
                for name in ("preset", "device", "devices", "out", "executor")
            },
        )
        self._executor = find_executor(request.executor)
        self._plan = self._executor.resolve(make_plan(run))
        self.machine = self._plan.machine or Machine(request.device, default_threads())
        arms = self.pair.contestants
        searched = SEARCHED[self.budget.kind]
        own_widths = not self.pair.matching.of_size and all(arm.widths for arm in arms)
        grids = {}
        for arm in arms:
            recipe = arm.presets[request.preset].recipe
            factors = width_factors([arm] if own_widths else arms, request.preset)
            grids[arm.name] = TrialGrid(recipe.learning_rate, recipe.batch_size, factors, searched)
        self.search = Search(grids, one_width=not own_widths)
        path = Path(request.out) / "tuning" / self.pair.task
        path = path / f"{self.pair.name}-{request.preset}.jsonl"
        if request.fresh:
            path.unlink(missing_ok=True)
        self.log = TrialLog(path)
        self._require_same_study()

    def tune(self) -> Tuned:
        """Search, and write each settled arm's choice into the log.

        Raises
        ------
        FailedError
            Where a trial fails; those that ended are in the log.
        KeyboardInterrupt
            After Ctrl-C, once the trial under way has ended.
        """
        first, more = self.request.trials, self.request.extensions
        self._say(
            f"{counted(first, 'point')} for each arm with {len(self.seeds)} seeds each, at "
            f"{self.budget.text} a trial, {self._time(first)}; at most {more} more "
            f"points until both arms are settled, {self._time(first + more)} in all"
        )
        explore(self.search, first, more, self._measure)
        refused = {arm: self.search.open_questions(arm) for arm in self.search.grids}
        choices = {arm: self._choice(arm) for arm, why in refused.items() if not why}
        for choice in choices.values():
            self.log.add(choice)
        return Tuned(
            choices,
            {arm: why for arm, why in refused.items() if why},
            self.search.points,
            self._width(),
            self.budget.text,
            self.log.path,
            self.log.sha256(),
            sum(trial.busy is not None for trial in self.log.trials),
        )

    @property
    def _width_for(self) -> WidthFor:
        if not any(
            "width" in each.searched and each.widths.keys() > {0}
            for each in self.search.grids.values()
        ):
            return "neither arm"
        return "both arms" if self.search.one_width else "each arm"

    def _width(self) -> str:
        match self._width_for:
            case "both arms":
                return (
                    "both arms have one factor on their widths, because the pair matches "
                    f"{self.pair.matching.target}; where it is not 1, measure again what is matched"
                )
            case "each arm":
                return "each arm has its own factor on its widths: no size is matched"
            case "neither arm":
                return "widths are as declared: they were not searched"

    def _time(self, points: int) -> str:
        """How long trials of both arms at ``points`` points take, in words."""
        seeds, arms = len(self.seeds), len(self.search.grids)
        # Of one point the seeds are what several devices have between them.
        at_once = max(1, min(len(self._plan.machines), seeds))
        if self.budget.kind == "seconds":
            seconds = points * seeds * (START_SECONDS + arms * self.budget.limit)
            seconds /= at_once
        else:
            once = estimated_seconds(self._plan)
            if once is None:
                return "for an unknown time"
            seconds = points * once / (self.request.jobs * at_once)
        return f"about {seconds / 60:.0f} min"

    def _measure(self, points: Mapping[str, GridPoint]) -> dict[str, float | None]:
        """The loss of each arm at its point: the geometric mean over the seeds, infinite where one
        diverged, None where it does not fit into its device's memory. Trials that are not in the
        log are run."""
        if self.search.points == self.request.trials:
            open_questions = {arm: self.search.open_questions(arm) for arm in points}
            for text in (f"{arm}: {each}" for arm, why in open_questions.items() for each in why):
                self._say(f"{text}; both arms get more points")
        setups = {arm: self.search.grids[arm].setup(point) for arm, point in points.items()}
        self._run(setups)
        losses: dict[str, float | None] = {}
        for arm, setup in setups.items():
            trials = [t for t in self.log.trials if (t.arm, t.setup) == (arm, setup)]
            if any(trial.status == TOO_LARGE for trial in trials):
                losses[arm] = None
                continue
            found = {trial.seed: trial.total for trial in trials}
            totals = [found[seed] for seed in self.seeds]
            known = [total for total in totals if total is not None]
            complete = len(known) == len(totals)
            losses[arm] = statistics.geometric_mean(known) if complete else math.inf
        return losses

    def _run(self, setups: Mapping[str, Setup]) -> None:
        """Run the trials of ``setups`` that are not in the log."""
        done = {(trial.arm, trial.setup, trial.seed) for trial in self.log.trials}
        contests = []
        for declared in self._plan.contests:
            jobs = [
                self._job(job, setups[job.arm])
                for job in declared.jobs
                if job.arm in setups and (job.arm, setups[job.arm], job.seed) not in done
            ]
            # One after the other both arms share the machine in turn; side by side each trial is a
            # contest of its own.
            together = [[job] for job in jobs] if self.request.jobs > 1 else [jobs]
            contests += [replace(declared, jobs=tuple(each)) for each in together if each]
        if not contests:
            return
        plan = RunPlan(self._plan.request, tuple(contests), side_by_side=self.request.jobs)
        result = self._executor.run(self._executor.resolve(plan), self)
        if result.interrupted:
            raise KeyboardInterrupt
        failures = [each for each in result.failures if each not in self._too_large]
        if failures:
            raise FailedError(
                f"a trial failed: {failures[0]}; "
                "the same command goes on with the trials that are left"
            )

    def _job(self, job: Job, setup: Setup) -> Job:
        width = write_number(setup.width)
        return msgspec.structs.replace(
            job,
            run_id=f"trial-{setup.learning_rate:g}-{setup.batch_size}-{width}-seed{job.seed}",
            command=self.request.command(recorded=True),
            recipe={"learning_rate": setup.learning_rate, "batch_size": setup.batch_size},
            config=_resized(self.pair.arm(job.arm), self.request.preset, setup),
            labels={"width": width},
            split="validation",
        )

    def note(self, text: str) -> None:
        """Say what a worker has to tell, once: every trial would say it again."""
        if text not in self._noted:
            self._noted.add(text)
            self._say(text)

    def trained(self, job: Job, progress: Progress) -> None:
        """Log the trial ``job``, which ended as ``progress`` says, so that an interruption loses
        none that is over; trials side by side end in threads of their own."""
        trial = self._trial(self.pair.arm(job.arm), _setup_of(job), job.seed, progress)
        words = [f"{trial.arm}: {trial.setup}, seed {trial.seed}:"]
        words.append("diverged" if trial.total is None else f"total {trial.total:.4g}")
        if trial.explained is not None:
            words[-1] += f", explained {trial.explained:.3f}"
        words.append(f"in {counted(trial.steps, 'step')}")
        if trial.busy is not None:
            words.append(f"but {trial.busy}")
        with self._writing:
            self.log.add(trial)
            self._say(" ".join(words))

    def too_large(self, job: Job, why: str) -> None:
        """Log that the trial ``job`` does not fit: the search goes on with smaller ones."""
        self._too_large.add(why)
        arm, setup = self.pair.arm(job.arm), _setup_of(job)
        nothing = Progress(step=0, spent=0.0, limit=1.0, finished=True)
        trial = msgspec.structs.replace(
            self._trial(arm, setup, job.seed, nothing), status=TOO_LARGE, reason=why
        )
        with self._writing:
            self.log.add(trial)
            self._say(f"{trial.arm}: {setup}, seed {trial.seed}: does not fit into the memory")

    def _trial(self, arm: ArmSpec, setup: Setup, seed: int, progress: Progress) -> Trial:
        sized = arm.presets[self.request.preset]
        samples, rate = progress.step * setup.batch_size, progress.samples_per_second
        diverged = progress.diverged is not None
        names = ("total", "explained", "share")
        recipe = {name: value for name, value in asdict(sized.recipe).items() if name not in _TUNED}
        trial = Trial(
            pair=self.request.pair,
            arm=arm.name,
            preset=self.request.preset,
            learning_rate=setup.learning_rate,
            batch_size=setup.batch_size,
            width=setup.width,
            seed=seed,
            budget=self.budget.text,
            # Trials on several devices of one kind are alike.
            device=self.machine.device.partition(":")[0],
            threads=self.machine.threads,
            status="diverged" if diverged else "completed",
            reason=progress.diverged,
            **{name: None if diverged else getattr(progress, name) for name in names},
            steps=progress.step,
            seconds=samples / rate if rate else None,
            config={**sized.config, **_resized(arm, self.request.preset, setup)},
            recipe=recipe,
            busy=progress.busy,
            machine=self._plan.machine.kind if self._plan.machine else None,
        )
        # As it will be read back: tuples become lists in JSON.
        return msgspec.json.decode(msgspec.json.encode(trial), type=Trial)

    def _require_same_study(self) -> None:
        """Raise ``UsageError`` if the log holds trials made under other settings."""
        settings = ["pair", "preset", "budget", "device", "threads", "config", "recipe"]
        if self.budget.kind == "seconds":
            settings.append("machine")
        nothing = Progress(step=0, spent=0.0, limit=1.0, finished=True)
        for theirs in self.log.trials:
            if theirs.arm not in self.search.grids:
                raise UsageError(
                    f"{self.log.path} holds trials of another arm, {theirs.arm}; "
                    "--fresh starts a new log"
                )
            ours = self._trial(self.pair.arm(theirs.arm), theirs.setup, theirs.seed, nothing)
            differing = [name for name in settings if getattr(ours, name) != getattr(theirs, name)]
            if differing:
                raise UsageError(
                    f"{self.log.path} holds trials with another {', '.join(differing)}; "
                    "--fresh starts a new log"
                )

    def _choice(self, arm: str) -> Choice:
        """What a settled arm is at."""
        search, preset = self.search, self.request.preset
        point, losses, grid = search.standing(arm), search.losses[arm], search.grids[arm]
        assert point is not None, "a settled arm stands somewhere"
        setup = grid.setup(point)
        lowest = min(
            (each for each in losses if not search.one_width or each.width == point.width),
            key=lambda each: losses[each],
        )
        return Choice(
            arm=arm,
            **setup._asdict(),
            config=msgspec.to_builtins(_resized(self.pair.arm(arm), preset, setup)),
            loss=losses[point],
            seeds=list(self.seeds),
            points=search.points,
            width_for=self._width_for,
            given_up=None
            if losses[lowest] == losses[point]
            else f"loss {losses[lowest]:.4g}: {search.cliff_at(arm, lowest)}",
        )


def recipe_lines(tuned: Tuned) -> list[str]:
    """The fields that go into each arm's recipe in the pair's file, and what its widths become."""
    lines = []
    for arm, choice in tuned.choices.items():
        chosen = f"learning_rate={choice.learning_rate!r}, batch_size={choice.batch_size}"
        line = f'{arm}: {chosen}, tuned_at="{tuned.budget}", tuning_log_sha256="{tuned.sha256}"'
        if choice.config:
            sizes = ", ".join(f"{name}={value!r}" for name, value in choice.config.items())
            line += f"; config {sizes} (width x{choice.width:g})"
        lines.append(line)
    return lines


def _setup_of(job: Job) -> Setup:
    """What the trial ``job`` is trained with."""
    recipe = job.recipe
    return Setup(recipe["learning_rate"], recipe["batch_size"], float(job.labels["width"]))


def _resized(arm: ArmSpec, preset: str, setup: Setup) -> dict[str, Any]:
    """The entries of the config that the width changes; an arm without widths has none."""
    return {} if setup.width == 1 else arm.resized(preset, setup.width)
