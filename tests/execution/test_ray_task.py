"""A task of Ray without Ray: what goes to a node, what comes back, and what a request may ask."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from equivbench.errors import FailedError, UsageError
from equivbench.execution import ray_task
from equivbench.execution.cluster import outcome
from equivbench.execution.executors import RunResult
from equivbench.execution.plan import RunPlan, make_plan
from equivbench.execution.planned import PlanFolder
from equivbench.execution.ray import RayExecutor, _check_fits, take_in
from equivbench.execution.ray_task import Sent, SentBack, run_sent
from equivbench.records.store import load_results
from equivbench.request import RunRequest


def plan(out: Path, **options: Any) -> RunPlan:
    asked = RunRequest.of(
        pairs="forcefield/vector", preset="dev", out=out, executor="ray", threads=1, **options
    )
    return RayExecutor().resolve(make_plan(asked))


@pytest.mark.slow
def test_records_come_back_from_a_node_that_does_not_see_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_workers: None
) -> None:
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache of the node"))
    folder = PlanFolder(tmp_path / "results")
    (unit,) = folder.add(plan(tmp_path / "results", budget="10steps", rungs=0).contests)
    sent = msgspec.json.encode(Sent(unit=unit, results=str(tmp_path / "elsewhere"), owner="ray:1"))
    back = run_sent(sent)
    assert not list(folder.results.glob("*/*/*/*/*.json"))
    pretend = SimpleNamespace(get=lambda reference: reference)
    for _ in range(2):  # what is there takes no second place
        result = RunResult()
        take_in(pretend, back, unit, folder, result)
        assert not result.failures
        records = load_results(folder.results)
        assert {record.arm for record in records} == {"equivariant", "augmented"}
        assert len(records) == 2
    assert folder.finished_on(unit)
    # A task that is begun again finds it finished.
    again, first = (msgspec.json.decode(each, type=SentBack) for each in (run_sent(sent), back))
    assert again.files == first.files
    assert again.failure is None


def test_what_a_node_lacks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache of the node"))
    folder = PlanFolder(tmp_path / "results")
    (unit,) = folder.add(plan(tmp_path / "results").contests)
    monkeypatch.setattr(ray_task, "run_unit_of", lacks)
    back = run_sent(msgspec.json.encode(Sent(unit=unit, results="/nowhere", owner="ray:1")))
    result = RunResult()
    take_in(SimpleNamespace(get=lambda reference: reference), back, unit, folder, result)
    outcome(folder, [unit], result, "look there")
    assert result.failures == ["forcefield/vector seed 0: device cuda is not available"]


def lacks(*_: object, **__: object) -> None:
    raise FailedError("device cuda is not available")


def test_names_that_a_node_sends_stay_in_the_results(tmp_path: Path) -> None:
    folder = PlanFolder(tmp_path / "results")
    (unit,) = folder.add(plan(tmp_path / "results").contests)
    bad = msgspec.json.encode(SentBack(seen=False, files={"../stolen.json": "e30="}))
    result = RunResult()
    take_in(SimpleNamespace(get=lambda reference: reference), bad, unit, folder, result)
    assert "a node sent a file with the name" in result.failures[0]
    assert not (tmp_path / "stolen.json").exists()


def test_what_no_node_has_is_not_waited_for(tmp_path: Path) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0}}, {"Alive": False, "Resources": {"GPU": 1}}]
    pretend = SimpleNamespace(nodes=lambda: nodes)
    _check_fits(pretend, plan(tmp_path))
    with pytest.raises(FailedError, match=r"no node .* \(CPU 1, GPU 1\)"):
        _check_fits(pretend, plan(tmp_path, device="cuda"))


def test_what_a_task_raises_is_one_sentence(tmp_path: Path) -> None:
    folder = PlanFolder(tmp_path)
    (unit,) = folder.add(plan(tmp_path).contests)

    def gone(reference: object) -> bytes:
        raise RuntimeError("the node\nis gone")

    result = RunResult()
    take_in(SimpleNamespace(get=gone), b"", unit, folder, result)
    assert result.failures == ["forcefield/vector seed 0: Ray says: the node is gone"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"executor_option": ("num_gpus=many",)}, "num_gpus=N"),
        ({"executor_option": ("num_gpus=0.5",)}, "never share one"),
        ({"executor_option": ("retries=-1",)}, "retries=N"),
        ({"executor_option": ("num_gpus=1",)}, "--device cuda too"),
        ({"executor_option": ("num_cpus=4",)}, "--threads N"),
        ({"detach": True}, "--detach"),
        ({"devices": "cuda:0"}, "are those of one machine"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=why):
        plan(tmp_path, **options)


def test_a_contest_takes_what_was_asked_for(tmp_path: Path) -> None:
    options = ("num_gpus=2", "fast_disk=1", "address=auto", "retries=3")
    shown = RayExecutor().script(plan(tmp_path, executor_option=options, device="cuda"))
    for part in ("'num_cpus': 1", "'num_gpus': 2", "{'fast_disk': 1.0}", "'max_retries': 3"):
        assert part in shown
