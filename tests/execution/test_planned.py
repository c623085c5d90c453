"""The plan of a results folder: which contests are the same, who joins which, what counts as
finished, and where each stands."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from factories import make_record

from equivbench.errors import FailedError
from equivbench.execution import identity
from equivbench.execution.leases import Leases, local_owner
from equivbench.execution.plan import Machine, RunPlan, make_plan
from equivbench.execution.planned import PlanFolder, Unit
from equivbench.execution.standing import standings
from equivbench.execution.state import finished_record, on_machines, open_state
from equivbench.execution.unit import read_unit
from equivbench.records.schema import Git
from equivbench.records.store import load_results, write_record
from equivbench.request import RunRequest
from equivbench.training.job import Job

NOW = datetime(2026, 11, 23, 16, 14, tzinfo=UTC)
HERE, TWO_THREADS = Machine("cpu", 1), Machine("cpu", 2)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def planned(machine: Machine = HERE, **asked: Any) -> RunPlan:
    request = RunRequest(**{"budget": "60s", **asked})
    return on_machines(make_plan(request, NOW), [machine])


def digest(**asked: Any) -> str:
    (unit,) = {job.unit for job in planned(**asked).jobs}
    return unit


def added(folder: PlanFolder, machine: Machine = HERE, **asked: Any) -> Unit:
    (unit,) = folder.add(planned(machine, **asked).contests)
    return unit


def finish(job: Job, machine: Machine = HERE, **more: Any) -> Path:
    """As if ``job`` had been run to its end."""
    task, pair = job.pair.split("/")
    told: dict[str, Any] = {
        "task": task,
        "pair": pair,
        "arm": job.arm,
        "seed": job.seed,
        "budget": {"limit": 60.0},
        "contest": job.contest,
        "environment": {"machine_key": machine.kind, "threads": machine.threads},
        "unit": job.unit,
    }
    record = make_record(**{**told, **more})
    return write_record(msgspec.structs.replace(record, run_id=job.run_id), job.request.out)


# --- the digest ---


def test_the_digest_is_that_of_what_is_asked_for_and_of_no_machine() -> None:
    same = digest()
    assert digest(out="elsewhere") == same
    assert digest(resume=True) == same
    assert digest(budget="1min") == same
    assert planned(TWO_THREADS).jobs[0].unit == same
    assert digest(arms=("augmented", "equivariant")) == same
    assert digest(device="cuda:1") == digest(device="cuda") == digest(devices=("cuda:0", "cuda:3"))
    assert digest(device="cpu") == digest(devices=("cpu:0", "cpu:1"))
    others: list[dict[str, Any]] = [
        {},
        {"seeds": (1,)},
        {"budget": "61s"},
        {"preset": "dev"},
        {"forces": "conservative"},
        {"arms": ("equivariant",)},
        {"threads": 2},
        {"device": "cpu"},
        {"device": "cuda"},
        {"rungs": 0},
        {"snapshots": True},
    ]
    assert len({digest(**other) for other in others}) == len(others)


def test_other_data_or_other_code_is_another_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest()
    monkeypatch.setattr(identity, "data_checksum", lambda name: "0" * 64)
    assert digest() != before
    monkeypatch.undo()
    monkeypatch.setattr(identity, "code_version", lambda: "another")
    assert digest() != before


def test_code_that_is_changed_and_changed_again_is_two_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = Git(commit="0" * 40, dirty=True, tree="1" * 40)
    monkeypatch.setattr(identity, "git_state", lambda: git)
    package = tmp_path / "package"
    monkeypatch.setattr(identity, "_PACKAGE", package)
    (package / "__pycache__").mkdir(parents=True)

    def version(content: str, compiled: str = "") -> str:
        (package / "model.py").write_text(content)
        (package / "__pycache__" / "model.pyc").write_text(compiled)
        return identity.code_version.__wrapped__()

    assert version("a") == version("a", "compiled") != version("b")


def test_data_that_has_no_checksum_yet_has_none() -> None:
    assert identity.data_checksum("nobody-has-it") is None
    assert identity.data_checksum("gfn2-small") == identity.data_checksum("gfn2-small") is not None


def test_the_state_of_a_unit_is_one_a_kind_of_machine() -> None:
    one, two = planned().jobs[0], planned(TWO_THREADS).jobs[0]
    assert one.unit == two.unit
    assert one.state_dir != two.state_dir
    share = Machine("cpu", 1, "cpu:1", (1,))
    assert planned(share).jobs[0].state_dir == one.state_dir
    assert (planned(share).jobs[0].devices, one.devices) == (["cpu:1"], ["cpu"])


# --- files ---


def test_a_unit_survives_its_file_and_is_hidden_from_whoever_reads_results(tmp_path: Path) -> None:
    folder = PlanFolder("results")
    units = folder.add(planned(seeds=(0, 1)).contests)
    assert folder.units() == units
    assert (folder.folder / ".gitignore").read_text() == "*\n"
    finish(units[0].contest.jobs[0])
    assert len(load_results("results")) == 1
    folder.path("0" * 20).write_bytes(b"{}")
    assert folder.units() == units, "what cannot be read is left out"
    with pytest.raises(FailedError, match="has no plan"):
        PlanFolder("nowhere").units()


def test_what_a_stranger_put_into_the_folders_is_left_out_and_not_waited_for() -> None:
    folder = PlanFolder("results")
    unit = added(folder)
    whole = folder.path(unit.digest).read_bytes()
    other = folder.path("0" * 20)
    for data in (b'{"a": "\xff"}', b'{"a": ' + b"[" * 10**5 + b"]" * 10**5 + b"}", whole):
        other.write_bytes(data)
        assert [each.unit for each in standings("results")] == [unit.digest]
    other.unlink()
    places = (other, Path(finish(unit.contest.jobs[0])).with_name("pipe.json"))
    for place in places:
        os.mkfifo(place)
    assert [each.unit for each in standings("results")] == [unit.digest]
    assert folder.finished_on(unit) == []
    leases = folder.folder / f"{unit.digest}.leases"
    leases.mkdir()
    os.mkfifo(leases / "1")
    assert standings("results")[0].where == "somewhere"


def test_a_resumed_contest_joins_what_is_planned_and_a_fresh_one_replaces_it() -> None:
    folder = PlanFolder("results")
    first = added(folder, resume=True)
    later = added(folder, resume=True)
    assert later.name != first.name
    assert folder.read(first.digest) == first
    assert folder.joined(later).name == first.name
    assert {job.run_id for job in folder.joined(later).contest.jobs} == {
        job.run_id for job in first.contest.jobs
    }
    fresh = added(folder)
    assert folder.joined(fresh) == fresh == folder.read(first.digest)
    assert folder.joined(later).name == fresh.name


def test_what_somebody_is_at_work_on_is_not_replaced() -> None:
    folder = PlanFolder("results", local_owner())
    first = added(folder)
    held = Leases(folder.folder / first.digest, local_owner()).take()
    assert held is not None
    added(folder)
    assert folder.read(first.digest) == first
    held.release()
    fresh = added(folder)
    assert folder.read(first.digest) == fresh


# --- attempts ---


def test_an_attempt_is_one_that_died_until_it_says_otherwise() -> None:
    folder = PlanFolder("results")
    unit, contest, said = folder.begin(added(folder), HERE, 0)
    assert said is None
    assert [each.ended for each in folder.read(unit.digest).attempts] == ["died"]
    assert all(job.started and not job.attempts for job in contest.jobs)
    folder.end(unit, "failed", ["no memory"])
    after = folder.read(unit.digest)
    assert ([each.ended for each in after.attempts], after.failures) == (["failed"], ["no memory"])
    again, contest, _ = folder.begin(folder.joined(unit), HERE, 3)
    assert [each.ended for each in again.attempts] == ["failed", "died"]
    assert [each.ended for each in contest.jobs[0].attempts] == ["failed"]
    assert {job.beside for job in contest.jobs} == {3}
    assert folder.read(unit.digest).failures == []


def test_what_was_begun_on_another_kind_of_machine_starts_afresh_and_says_so() -> None:
    folder = PlanFolder("results")
    unit, contest, _ = folder.begin(added(folder, resume=True), HERE, 0)
    for job in contest.jobs:
        open_state(job)
    same, contest, said = folder.begin(folder.joined(unit), HERE, 0)
    assert (said, same.name) == (None, unit.name)
    assert all(job.request.resume for job in contest.jobs)
    other, contest, said = folder.begin(folder.joined(unit), TWO_THREADS, 0)
    assert said is not None
    assert HERE.kind in said
    assert other.name != unit.name
    assert not any(job.request.resume for job in contest.jobs)
    assert all(job.run_id.endswith(other.name) for job in contest.jobs)
    # And back: what is left here is of the contest that was given up.
    back, contest, said = folder.begin(folder.joined(other), HERE, 0)
    assert said is not None
    assert not any(job.request.resume for job in contest.jobs)
    assert len(back.attempts) == 4


# --- what is finished ---


def test_finished_is_a_record_of_the_unit_on_this_kind_of_machine() -> None:
    folder = PlanFolder("results")
    unit = added(folder, resume=True)
    one, two = unit.contest.jobs
    assert finished_record(one) is None
    path = finish(one)
    assert (finished_record(one), finished_record(two)) == (path, None)
    assert folder.finished_on(unit) == []
    finish(two, status="diverged", reason="nan", final=None)
    assert folder.finished_on(unit) == [HERE.kind]
    elsewhere = planned(TWO_THREADS, resume=True).jobs[0]
    assert finished_record(elsewhere) is None
    path.write_bytes(path.read_bytes()[:-20])
    assert finished_record(one) is None
    assert folder.finished_on(unit) == []


@pytest.mark.parametrize(
    "other",
    [
        {"unit": "f" * 20},
        {"unit": None},
        {"status": "interrupted", "reason": "stopped"},
        {"budget": {"limit": 240.0, "extends": 60.0}},
    ],
    ids=["another unit", "none", "interrupted", "longer"],
)
def test_what_is_no_record_of_the_unit_is_not(other: dict[str, Any]) -> None:
    (job, _) = added(PlanFolder("results"), resume=True).contest.jobs
    finish(job, **other)
    assert finished_record(job) is None


def test_of_a_repetition_its_own_records_count_alone() -> None:
    folder = PlanFolder("results")
    earlier = added(folder, resume=True)
    for job in earlier.contest.jobs:
        finish(job)
    again = added(folder)
    assert (earlier.own, again.own) == (None, again.name)
    assert folder.finished_on(earlier) == [HERE.kind]
    assert folder.finished_on(again) == []
    job = again.contest.jobs[0]
    assert finished_record(job, again.own) is None
    path = finish(job)
    assert finished_record(job, again.own) == path


# --- where each stands ---


def test_where_each_unit_stands_is_read_from_files_alone() -> None:
    folder = PlanFolder("results", "ray:1")
    units = folder.add(planned(seeds=tuple(range(6)), resume=True).contests)
    for job in units[0].contest.jobs:
        finish(job, status="diverged", reason="nan", final=None)
    failed, *_ = folder.begin(units[1], HERE, 0)
    folder.end(failed, "failed", ["no memory"])
    stopped, *_ = folder.begin(units[2], HERE, 0)
    folder.end(stopped, "interrupted", [])
    folder.begin(units[3], HERE, 0)
    held = folder.leases(units[4].digest).take(devices=["cuda:1"], doing="training")
    found = standings("results")
    assert [each.state for each in found] == [
        *("done", "failed", "waiting", "waiting", "running", "waiting"),
    ]
    assert found[0].note == "augmented, equivariant diverged"
    assert found[1].note == "no memory"
    assert "--resume" in (found[2].note or "")
    assert "is gone" in (found[3].note or "")
    assert (found[4].where, found[4].doing) == ("ray 1 on cuda:1", "training")
    assert [each.attempts for each in found] == [0, 1, 1, 1, 0, 0]
    assert found[5].note is None
    assert held is not None
    held.release()
    assert standings("results")[4].state == "waiting"


# --- in a process of its own ---


def test_a_unit_is_read_as_whoever_runs_it_would_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = PlanFolder("results")
    unit = added(folder, devices=("cpu:0", "cpu:1"))
    found = read_unit(folder.path(unit.digest))
    request = found.contest.jobs[0].request
    assert (request.out, request.devices) == (str(tmp_path / "results"), None)
    assert request.device == "cpu"
    assert found.digest == unit.digest
    monkeypatch.setattr(identity, "code_version", lambda: "another")
    with pytest.raises(FailedError, match="another version of the code"):
        read_unit(folder.path(unit.digest))
    with pytest.raises(FailedError, match="is no unit of a plan"):
        read_unit(tmp_path / "results" / ".plan" / "0.json")


def test_a_resumed_plan_takes_over_the_names_in_this_cache() -> None:
    """Where the plan's folder is gone, or was never there."""
    (contest,) = planned(resume=True).contests
    for job in contest.jobs:
        open_state(job)
    (later,) = planned(resume=True).contests
    assert [job.run_id for job in later.jobs] == [job.run_id for job in contest.jobs]
    assert {job.contest for job in later.jobs} == {contest.jobs[0].contest}
    assert replace(later, jobs=()) == replace(contest, jobs=())


def test_what_waits_for_code_that_is_gone_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    added(PlanFolder("results"))
    assert standings("results")[0].note is None
    monkeypatch.setattr("equivbench.execution.standing.code_version", lambda: "another")
    (standing,) = standings("results")
    assert standing.state == "waiting"
    assert "another version of the code" in (standing.note or "")
