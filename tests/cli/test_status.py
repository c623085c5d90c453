"""``equivbench status`` and the plan that ``run --dry-run`` prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from equivbench.cli.main import main
from equivbench.execution.executors import find_executor
from equivbench.execution.leases import ArmProgress
from equivbench.execution.plan import make_plan
from equivbench.execution.planned import PlanFolder
from equivbench.execution.shares import CoreShare
from equivbench.request import RunRequest


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


def test_a_folder_without_a_plan_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status") == 3
    assert "results has no plan" in capsys.readouterr().err


def test_each_contest_has_a_row_and_all_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    request = RunRequest(seeds=(0, 1, 2), device="cpu", threads=1, budget="60s")
    plan = find_executor("local").resolve(make_plan(request))
    folder = PlanFolder("results", "slurm:7_1")
    units = folder.add(plan.contests)
    held = folder.leases(units[1].digest).take(devices=["cuda:0"])
    assert held is not None
    held.tell(doing="timing", progress={"augmented": ArmProgress(step=9, spent=15.0, limit=60.0)})
    assert run("status") == 0
    shown = capsys.readouterr().out
    assert "2 waiting, 1 running, 0 done, 0 failed" in shown
    (line,) = [line for line in shown.splitlines() if "running" in line and "vector" in line]
    assert "slurm 7_1 on cuda:0" in line
    assert "augmented 25% (timing)" in line
    outputs = []
    for words in (("results",), ("--results", "results")):
        assert run("status", *words, "--json") == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    assert run("status", "results", "--results", "elsewhere") == 2
    assert "results and --results elsewhere are two places" in capsys.readouterr().err
    assert run("status", "results", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["state"] for each in found] == ["waiting", "running", "waiting"]
    assert found[1]["progress"]["augmented"] == {"step": 9, "spent": 15.0, "limit": 60.0}
    # Whoever wrote that.
    held.tell(progress={"augmented": ArmProgress(step=9, spent=15.0, limit=0.0)})
    assert run("status") == 0
    held.release()


def test_a_dry_run_says_what_the_plan_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("run", "--dry-run", "--seeds", "0-2", "--budget", "60s")
    assert run(*asked, "--device", "cpu", "--threads", "1", "--json") == 0
    alone = json.loads(capsys.readouterr().out)
    assert [unit["seed"] for unit in alone["units"]] == [0, 1, 2]
    assert len({unit["unit"] for unit in alone["units"]}) == 3
    hours = sum(unit["device_hours"] for unit in alone["units"])
    assert alone["device_hours"] == pytest.approx(hours)
    assert alone["estimated_seconds"] == pytest.approx(3600 * hours)
    assert hours > 3 * 2 * 60 / 3600, "both arms, and what comes on top of their budget"
    assert (alone["workers"], alone["wall_seconds"]) == (1, pytest.approx(3600 * hours))
    assert not Path("results").exists()
    monkeypatch.setattr(
        "equivbench.execution.plan.core_shares", lambda count: [CoreShare((), 1)] * count
    )
    assert run(*asked, "--devices", "cpu:0,cpu:1", "--json") == 0
    two = json.loads(capsys.readouterr().out)
    assert two["workers"] == 2
    assert two["device_hours"] == pytest.approx(hours)
    assert two["wall_seconds"] == pytest.approx(2 / 3 * 3600 * hours)
    assert run(*asked, "--devices", "cpu:0,cpu:1") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "6 runs in 3 contests on cpu:0, cpu:1 with 1 thread each" in shown
    assert "with 2 contests at once" in shown
    assert "device-hours, evaluations and starts included" in shown
