"""A tuning, on losses made up for it: what it asks for, keeps, repeats and refuses; and once with
real training."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from running import Bench
from typer.testing import CliRunner

from equivbench.budget import Budget
from equivbench.cli.main import app
from equivbench.errors import FailedError, UsageError
from equivbench.execution import tuning
from equivbench.execution.executors import RunResult
from equivbench.execution.plan import Machine
from equivbench.execution.search import Setup
from equivbench.execution.trials import TrialLog
from equivbench.execution.tune_request import TuneRequest
from equivbench.execution.tuning import Study, recipe_lines
from equivbench.registry import PAIRS
from equivbench.training.job import Job, Progress

PAIR = "forcefield/vector"
VECTOR = PAIRS.get(PAIR)
RECIPES = {arm.name: arm.presets["small"].recipe for arm in VECTOR.contestants}
Loss = Callable[[str, Setup, int], float | None]


def steps(arm: str, setup: Setup) -> tuple[float, float, float]:
    """How many steps of rate, batch and width ``setup`` is away from the recipe."""
    recipe = RECIPES[arm]
    return (
        math.log2(setup.learning_rate / recipe.learning_rate),
        math.log2(setup.batch_size / recipe.batch_size),
        2 * math.log2(setup.width),
    )


def chosen_line(arm: str, rate: float, batch: float) -> str:
    """How a choice that is these factors away from the recipe begins to be written."""
    recipe = RECIPES[arm]
    chosen = f"learning_rate={recipe.learning_rate * rate:g}"
    return f"{arm}: {chosen}, batch_size={recipe.batch_size * batch:.0f}"


def bowl(**bottoms: tuple[float, float, float]) -> Loss:
    """Loss of each arm about its own best point; seeds differ by a factor."""

    def loss(arm: str, setup: Setup, seed: int) -> float:
        away = sum((a - b) ** 2 for a, b in zip(steps(arm, setup), bottoms[arm], strict=True))
        return math.exp(0.1 * away) * (1.1 if seed % 2 else 1 / 1.1)

    return loss


CENTRED = bowl(equivariant=(1, -1, 1), augmented=(-1, 0, 1))


class Pretender:
    """An executor whose runs end as ``loss`` says; after ``patience`` runs it is interrupted."""

    def __init__(
        self,
        loss: Loss,
        patience: float = math.inf,
        busy: str | None = None,
        holds: int | None = None,
    ) -> None:
        self.loss = loss
        self.patience = patience
        self.busy = busy
        self.holds = holds
        """The largest batch that the memory of the device holds."""
        self.contests: list[list[Job]] = []

    def resolve(self, plan):
        return replace(plan, machines=(Machine("cpu", 2),))

    def run(self, plan, callback):
        failures = []
        for contest in plan.contests:
            self.contests.append(list(contest.jobs))
            for job in contest.jobs:
                if self.patience <= 0:
                    return RunResult(interrupted=True)
                self.patience -= 1
                if self.holds is not None and job.recipe["batch_size"] > self.holds:
                    failures.append(f"{job.label}: the memory of cuda is too small for it")
                    callback.too_large(job, failures[-1])
                    continue
                width = float(job.labels["width"])
                setup = Setup(job.recipe["learning_rate"], job.recipe["batch_size"], width)
                total = self.loss(job.arm, setup, job.seed)
                limit = Budget.parse(job.budget).limit
                diverged = "the loss is NaN" if total is None else None
                callback.trained(
                    job,
                    Progress(10, limit, limit, True, 0, diverged, total=total, busy=self.busy),
                )
        return RunResult(failures=failures)


class Studies:
    """Makes studies of the quick-start pair whose trials end as a made-up loss says."""

    def __init__(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.out = out
        self.monkeypatch = monkeypatch
        self.said: list[str] = []

    def __call__(
        self, loss: Loss, patience: float = math.inf, **asked: Any
    ) -> tuple[Study, Pretender]:
        executor = Pretender(loss, patience)
        self.monkeypatch.setattr(tuning, "find_executor", lambda name: executor)
        request = TuneRequest(**{"pair": PAIR, "out": str(self.out), **asked})
        return Study(request, self.said.append), executor


@pytest.fixture
def study(tmp_path, monkeypatch):
    return Studies(tmp_path, monkeypatch)


def lines(log: Path) -> list[dict]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_both_arms_have_equal_trials_of_each_seed_in_contests_of_both(study):
    made, executor = study(CENTRED)
    tuned = made.tune()
    trials = [line for line in lines(tuned.log) if line["kind"] == "trial"]
    counts = Counter((each["arm"], each["seed"]) for each in trials)
    assert set(counts.values()) == {tuned.points}
    assert set(counts) == {(arm, seed) for arm in RECIPES for seed in (1000, 1001)}
    for jobs in executor.contests:
        assert {job.arm for job in jobs} == RECIPES.keys()
        assert len({(job.seed, job.contest) for job in jobs}) == 1
    assert {job.split for jobs in executor.contests for job in jobs} == {"validation"}
    assert {job.budget for jobs in executor.contests for job in jobs} == {"60s"}
    assert len({(job.arm, job.run_id) for jobs in executor.contests for job in jobs}) == len(trials)


def test_what_workers_tell_is_said_once(study):
    made, _ = study(CENTRED)
    for text in ("a source changed", "a source changed", "no compiler"):
        made.note(text)
    assert study.said == ["a source changed", "no compiler"]


def test_each_arm_gets_its_own_rate_and_batch_and_both_one_width(study):
    made, executor = study(CENTRED)
    tuned = made.tune()
    found = tuned.choices
    assert steps("equivariant", found["equivariant"].setup)[:2] == (1, -1)
    assert steps("augmented", found["augmented"].setup)[:2] == (-1, 0)
    assert {each.width for each in found.values()} == {1.414}
    wide = {arm.name: arm.resized("small", 1.414) for arm in VECTOR.contestants}["equivariant"]
    assert found["equivariant"].config == wide
    assert found["equivariant"].loss == pytest.approx(1.0, rel=1e-3), "the mean of both seeds"
    (first, second) = recipe_lines(tuned)
    assert first.startswith(f'{chosen_line("equivariant", 2, 0.5)}, tuned_at="60s"')
    text = f"config features={wide['features']} (width x1.414)"
    assert f'tuning_log_sha256="{tuned.sha256}"; {text}' in first
    assert second.startswith(f"{chosen_line('augmented', 0.5, 1)},")
    assert "both arms have one factor" in tuned.width
    resized = [job.config for jobs in executor.contests for job in jobs if job.config]
    assert wide in resized


def test_where_no_size_is_matched_each_arm_has_its_own_width(study, monkeypatch):
    unmatched = replace(VECTOR, matching=replace(VECTOR.matching, of_size=False))
    monkeypatch.setattr(PAIRS, "get", lambda name: unmatched)
    made, _ = study(bowl(equivariant=(0, 0, 1), augmented=(0, 0, -1)), extensions=20)
    tuned = made.tune()
    assert {arm: each.width for arm, each in tuned.choices.items()} == {
        "equivariant": 1.414,
        "augmented": 0.7071,
    }
    assert "its own factor" in tuned.width


def test_where_one_arm_declares_no_widths_neither_has_another(study, monkeypatch):
    mine = VECTOR.with_model("plain-vectors", name="mine")
    monkeypatch.setattr(PAIRS, "get", lambda name: mine)
    made, executor = study(bowl(equivariant=(0, 0, 2), augmented=(0, 0, 2)))
    tuned = made.tune()
    assert not any(job.config for jobs in executor.contests for job in jobs)
    assert "not searched" in tuned.width


def test_what_does_not_fit_into_the_memory_is_logged_and_tried_smaller(study, tmp_path):
    # The augmented arm's best batch is four times as large as the memory holds.
    far = bowl(equivariant=(0, 0, 0), augmented=(0, 2, 0))
    made, executor = study(far, extensions=30)
    executor.holds = RECIPES["augmented"].batch_size
    tuned = made.tune()
    assert tuned.refused == {}
    assert tuned.choices["augmented"].batch_size == RECIPES["augmented"].batch_size
    trials = [line for line in lines(tuned.log) if line["kind"] == "trial"]
    large = [each for each in trials if each["status"] == "out of memory"]
    assert large
    assert all(each["total"] is None and "too small" in each["reason"] for each in large)
    assert all((each["batch_size"] > executor.holds) == (each in large) for each in trials)
    assert any("does not fit" in text for text in study.said)
    done = len(trials)
    again, other = study(far, extensions=30)
    other.holds = executor.holds
    assert again.tune().choices == tuned.choices
    assert other.contests == []
    assert len(again.log.trials) == done


def test_an_interrupted_tuning_goes_on_and_repeats_nothing(study):
    whole, reference = study(CENTRED)
    expected = whole.tune()
    kept = sorted(map(str, lines(expected.log)))
    expected.log.unlink()
    for patience in (5, 3, 7):
        made, _ = study(CENTRED, patience)
        with pytest.raises(KeyboardInterrupt):
            made.tune()
    made, rest = study(CENTRED)
    tuned = made.tune()
    assert tuned.choices == expected.choices
    assert sorted(map(str, lines(tuned.log))) == kept
    assert sum(map(len, rest.contests)) == sum(map(len, reference.contests)) - 15
    again, nothing = study(CENTRED)
    assert again.tune() == tuned
    assert nothing.contests == []


def test_another_seed_is_added_to_the_points_that_were_tried(study):
    study(CENTRED)[0].tune()
    made, executor = study(CENTRED, seeds=(1000, 1001, 1003))
    tuned = made.tune()
    assert {job.seed for jobs in executor.contests for job in jobs} == {1003}
    assert {tuple(each.seeds) for each in tuned.choices.values()} == {(1000, 1001, 1003)}


def test_an_arm_at_an_edge_gets_no_recipe_line(study):
    def loss(arm: str, setup: Setup, seed: int) -> float:
        rate, *others = steps(arm, setup)
        slope = -0.2 * rate if arm == "augmented" else 0.1 * rate**2
        return math.exp(slope + 0.1 * sum(each**2 for each in others))

    at = {"budget": "100000samples", "shorter": True, "trials": 5}
    made, _ = study(loss, extensions=2, **at)
    tuned = made.tune()
    assert "a higher rate" in tuned.refused["augmented"][0]
    assert [line.partition(":")[0] for line in recipe_lines(tuned)] == ["equivariant"]
    assert tuned.points == 7
    more = study(loss, extensions=4, **at)[0].tune()
    assert more.points == 9


def test_the_log_says_what_was_given_up_for_a_point_away_from_the_cliff(study):
    def loss(arm: str, setup: Setup, seed: int) -> float | None:
        rate, *others = steps(arm, setup)
        bottom = math.exp(0.05 * (rate - 1) ** 2 + 0.1 * sum(each**2 for each in others))
        return None if rate > 1.1 and arm == "augmented" and seed == 1001 else bottom

    made, _ = study(loss)
    tuned = made.tune()
    (chosen,) = [
        line for line in lines(tuned.log) if line["kind"] == "choice" and line["arm"] == "augmented"
    ]
    assert chosen["learning_rate"] < 1.5 * RECIPES["augmented"].learning_rate
    assert "diverged" in chosen["given_up"]
    assert tuned.choices["equivariant"].given_up is None


def test_it_says_at_the_start_how_long_it_takes(study):
    study(CENTRED)[0].tune()
    # Nine points of both arms with two seeds, a minute each, and the start of each contest.
    assert "9 points for each arm with 2 seeds" in study.said[0]
    assert "about 39 min" in study.said[0]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"budget": "20s"}, "often the reverse"),
        ({"budget": "5000steps"}, "often the reverse"),
        ({"seeds": (1000,)}, "at least 2 seeds"),
        ({"seeds": (1000, 1000)}, "at least 2 seeds"),
        ({"seeds": (1000, 5)}, "begin at 1000.* 5 is not allowed"),
        ({"trials": 6}, "at least 7"),
        ({"extensions": -1}, "at least 0"),
        ({"trials": 300, "extensions": 200}, "at most 400"),
        ({"jobs": 0}, "--jobs"),
        ({"jobs": 2}, "steps or samples"),
        ({"preset": "smal"}, "did you mean small"),
    ],
)
def test_what_makes_no_sense_is_refused(study, asked, says):
    with pytest.raises(UsageError, match=says):
        study(CENTRED, **asked)


def test_trials_on_a_busy_machine_are_marked_and_counted(study):
    made, executor = study(CENTRED)
    executor.busy = "the machine was busy (it had to wait for 9.0 of 60.0 s)"
    tuned = made.tune()
    trials = [line for line in lines(tuned.log) if line["kind"] == "trial"]
    assert {trial["busy"] for trial in trials} == {executor.busy}
    assert tuned.busy == len(trials) > 0
    assert all(text.endswith(f"but {executor.busy}") for text in study.said[1:3])


def test_a_log_from_before_busy_trials_were_marked_goes_on(study):
    tuned = study(CENTRED)[0].tune()
    old = [
        {name: value for name, value in line.items() if name != "busy"} for line in lines(tuned.log)
    ]
    tuned.log.write_text("".join(f"{json.dumps(line)}\n" for line in old))
    again = study(CENTRED)[0].tune()
    assert again.choices == tuned.choices
    assert again.busy == 0


def test_a_shorter_budget_can_be_asked_for_in_so_many_words(study):
    assert study(CENTRED, budget="20s", shorter=True)[0].budget.text == "20s"
    assert study(CENTRED, budget="2min")[0].budget.text == "120s"


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"budget": "120s"}, "budget"),
        ({"width": 2.0}, "config"),
        ({"threads": 1}, "threads"),
        ({"machine": "another-2t"}, "machine"),
        ({"machine": None}, "machine"),
    ],
)
def test_trials_under_other_settings_are_refused_by_name(study, changed, name):
    tuned = study(CENTRED)[0].tune()
    first, *rest = tuned.log.read_text().splitlines()
    tuned.log.write_text("\n".join([json.dumps({**json.loads(first), **changed}), *rest]) + "\n")
    with pytest.raises(UsageError, match=name):
        study(CENTRED)
    assert study(CENTRED, fresh=True)[0].log.trials == []


def test_a_log_from_before_widths_were_searched_is_refused(study, tmp_path):
    log = tmp_path / "tuning" / "forcefield" / "vector-small.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text('{"pair":"forcefield/vector","learning_rate":0.1}\n')
    with pytest.raises(FailedError, match="move it away or use --fresh"):
        study(CENTRED)


def test_the_command_prints_recipes_and_ends_with_3_where_one_is_missing(
    study, tmp_path, monkeypatch
):
    def loss(arm: str, setup: Setup, seed: int) -> float | None:
        return None if arm == "augmented" else CENTRED(arm, setup, seed)

    monkeypatch.setattr(tuning, "find_executor", lambda name: Pretender(CENTRED))
    command = ["tune", PAIR, "--out", str(tmp_path)]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 0, ran.output
    assert chosen_line("equivariant", 2, 0.5) in ran.stdout
    monkeypatch.setattr(tuning, "find_executor", lambda name: Pretender(loss))
    ran = CliRunner().invoke(app, [*command, "--fresh", "--extensions", "0"])
    assert isinstance(ran.exception, FailedError)
    assert "augmented: every trial diverged" in str(ran.exception)
    assert "learning_rate=" not in ran.stdout.partition("augmented:")[2]


@pytest.mark.slow
def test_real_trials_are_logged_resumed_and_not_repeated(bench: Bench) -> None:
    command: tuple[str, ...]
    command = ("tune", "toy/plain", "--preset", "dev", "--budget", "15steps", "--threads", "1")
    assert bench(*command).code == 2, "shorter than the preset's"
    command += ("--shorter", "--trials", "3", "--extensions", "1")
    ran = bench(*command, "--json")
    assert ran.code in (0, 3), ran.err
    log = TrialLog(bench.results / "tuning" / "toy" / "plain-dev.jsonl")
    counts = Counter((trial.arm, trial.seed) for trial in log.trials)
    assert len(counts) == 4
    assert set(counts.values()) == {ran.json["points"]}
    assert all(trial.total > 0 for trial in log.trials)
    kept = log.path.read_text().splitlines()
    log.path.write_text("\n".join(kept[:5]) + "\n" + kept[5][:20])
    again = bench(*command, "--jobs", "2", "--json")
    assert again.code == ran.code, again.err
    assert again.json["choices"] == ran.json["choices"]
    totals = {(t.arm, t.setup, t.seed): t.total for t in TrialLog(log.path).trials}
    assert totals == {(t.arm, t.setup, t.seed): t.total for t in log.trials}


@pytest.mark.slow
def test_a_real_trial_that_runs_out_of_memory_is_logged_as_one(bench: Bench) -> None:
    command = ("tune", "toy/dies-memory", "--preset", "dev", "--budget", "100steps", "--shorter")
    ran = bench(*command, "--threads", "1", "--trials", "3")
    # A budget in steps leaves nothing to make smaller.
    assert ran.code == 3
    assert "equivariant does not fit into the memory" in ran.err
    log = TrialLog(bench.results / "tuning" / "toy" / "dies-memory-dev.jsonl")
    assert {(trial.arm, trial.status) for trial in log.trials} == {
        ("equivariant", "out of memory"),
        ("augmented", "completed"),
    }
    assert all("MemoryError" in t.reason for t in log.trials if t.arm == "equivariant")
