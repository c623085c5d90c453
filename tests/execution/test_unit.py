"""What is said in the plan of a unit that is run, whatever becomes of its contest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from factories import make_record

from equivbench.errors import FailedError, UsageError
from equivbench.execution import unit as module
from equivbench.execution.executors import Callback, KeptRecord, RunResult
from equivbench.execution.interrupt import Interrupt
from equivbench.execution.leases import Leases
from equivbench.execution.plan import Machine, make_plan
from equivbench.execution.planned import PlanFolder, Unit
from equivbench.execution.standing import standings
from equivbench.execution.state import on_machines
from equivbench.execution.unit import run_unit
from equivbench.records.store import write_record
from equivbench.request import RunRequest

HERE, TWO_THREADS = Machine("cpu", 1), Machine("cpu", 2)
Act = Callable[["Pretended"], None]


class Pretended:
    """A contest that does what ``act`` does."""

    act: Act
    runs = 0

    def __init__(self, contest: Any, callback: Any, result: RunResult, *rest: Any) -> None:
        self.contest, self.result, self.rest = contest, result, rest
        self.abandoned = False

    def run(self, extend: float | None) -> None:
        type(self).runs += 1
        type(self).act(self)


def finish(run: Pretended) -> None:
    for job in run.contest.jobs:
        where = Machine(job.device, job.threads).kind
        task, pair = job.pair.split("/")
        record = make_record(
            task=task,
            pair=pair,
            arm=job.arm,
            seed=job.seed,
            budget={"limit": 60.0},
            contest=job.contest,
            environment={"machine_key": where, "threads": job.threads},
            unit=job.unit,
        )
        record = msgspec.structs.replace(record, run_id=job.run_id)
        path = write_record(record, job.request.out)
        run.result.kept.append(KeptRecord(record, path, None))


def raising(error: BaseException) -> Act:
    def act(run: Pretended) -> None:
        raise error

    return act


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Pretended]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))

    class Contest(Pretended):
        pass

    monkeypatch.setattr(module, "ContestRun", Contest)
    return Contest


@pytest.fixture
def folder(pretended: type[Pretended]) -> PlanFolder:
    return PlanFolder("results", "ray:1")


def planned(folder: PlanFolder, machine: Machine = HERE, *, resume: bool = True) -> Unit:
    plan = on_machines(make_plan(RunRequest(budget="60s", resume=resume)), [machine])
    (unit,) = folder.add(plan.contests)
    return unit


def run(
    unit: Unit, folder: PlanFolder, machine: Machine = HERE, **how: bool
) -> tuple[bool, RunResult]:
    result = RunResult()
    return run_unit(unit, folder, machine, Callback(), result, Interrupt(), **how), result


def ends(unit: Unit, folder: PlanFolder) -> list[str]:
    there = folder.read(unit.digest)
    assert there is not None
    return [attempt.ended for attempt in there.attempts]


def test_a_finished_contest_is_completed_and_another_run_makes_no_attempt(
    folder: PlanFolder, pretended: type[Pretended]
) -> None:
    unit, pretended.act = planned(folder), finish
    done, result = run(unit, folder)
    assert done
    assert [kept.record.arm for kept in result.kept] == ["equivariant", "augmented"]
    assert ends(unit, folder) == ["completed"]
    pretended.act = lambda run: None
    assert run(unit, folder)[0]
    assert ends(unit, folder) == ["completed"]
    assert folder.leases(unit.digest).current() is None


@pytest.mark.parametrize(
    ("act", "ended", "state"),
    [
        (lambda run: None, "interrupted", "waiting"),
        (lambda run: run.result.failures.append("no memory"), "failed", "failed"),
        (raising(KeyboardInterrupt()), "interrupted", "waiting"),
        (raising(UsageError("no such option")), "failed", "failed"),
        (raising(RuntimeError("a defect")), "failed", "failed"),
    ],
    ids=["stopped", "failed", "stopped at once", "usage", "defect"],
)
def test_however_it_ends_the_plan_says_so_and_the_lease_is_free(
    folder: PlanFolder, pretended: type[Pretended], act: Act, ended: str, state: str
) -> None:
    unit, pretended.act = planned(folder), act
    with contextlib.suppress(KeyboardInterrupt, UsageError, RuntimeError):
        run(unit, folder)
    assert ends(unit, folder) == [ended]
    assert [each.state for each in standings("results")] == [state]
    assert Leases(folder.folder / unit.digest, "ray:2").take() is not None


def test_what_is_finished_on_another_kind_of_machine_counts_where_it_was_asked_for(
    folder: PlanFolder, pretended: type[Pretended]
) -> None:
    unit, pretended.act = planned(folder), finish
    run(unit, folder, TWO_THREADS)
    done, result = run(unit, folder, HERE, anywhere=True)
    assert (done, pretended.runs) == (True, 1)
    assert [kept.reused for kept in result.kept] == [True, True]
    # On this machine alone it is another contest, and says so.
    done, result = run(unit, folder, HERE)
    assert (done, pretended.runs) == (True, 2)
    assert "starts afresh" in " ".join(result.notes)
    names = {kept.record.contest for kept in result.kept}
    assert names.isdisjoint({unit.name})


def test_who_lost_its_lease_adds_nothing_and_asks_again(
    folder: PlanFolder, pretended: type[Pretended]
) -> None:
    unit = planned(folder)

    def lose(run: Pretended) -> None:
        run.abandoned = True
        finish(run)

    pretended.act = lose
    done, result = run(unit, folder)
    assert not done
    assert (result.kept, result.failures) == ([], [])
    assert ends(unit, folder) == ["died"]


def test_a_unit_that_somebody_is_at_work_on_is_left_alone(
    folder: PlanFolder, pretended: type[Pretended]
) -> None:
    unit, pretended.act = planned(folder), finish
    held = Leases(folder.folder / unit.digest, "slurm:7_1").take()
    assert held is not None
    assert run(unit, folder) == (False, RunResult())
    assert pretended.runs == 0
    held.release()
    assert run(unit, folder)[0]


def test_a_fresh_run_repeats_what_is_finished(
    folder: PlanFolder, pretended: type[Pretended]
) -> None:
    first, pretended.act = planned(folder), finish
    run(first, folder)
    again = planned(folder, resume=False)
    _, result = run(again, folder)
    assert {kept.record.contest for kept in result.kept} == {again.name} != {first.name}
    assert ends(again, folder) == ["completed"]


def test_a_folder_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, pretended: type[Pretended]
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / ".plan").write_text("a file")
    with pytest.raises(FailedError, match="cannot write"):
        planned(PlanFolder("results"))
