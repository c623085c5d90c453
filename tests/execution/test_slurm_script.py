"""What the executor ``slurm`` hands to sbatch, and what it refuses, without a Slurm."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from equivbench.errors import FailedError, UsageError
from equivbench.execution import slurm, slurm_task
from equivbench.execution.cluster import options_by_name, own_import_path
from equivbench.execution.executors import Callback, find_executor
from equivbench.execution.interrupt import Interrupt
from equivbench.execution.plan import RunPlan, make_plan
from equivbench.execution.planned import PlanFolder
from equivbench.execution.slurm import SlurmExecutor, batch_script
from equivbench.request import RunRequest


def plan(tmp_path: Path, **options: object) -> RunPlan:
    asked = RunRequest.of(
        pairs="forcefield/vector", preset="dev", out=tmp_path, executor="slurm", **options
    )
    return SlurmExecutor().resolve(make_plan(asked))


def directives(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH --") for line in script.splitlines() if "#SBATCH" in line]


def test_the_script_is_what_was_asked_for_and_bash_can_read_it(tmp_path: Path) -> None:
    options = ("partition=gpu", "gres=gpu:1", "exclusive", "time=2:00:00")
    planned = plan(tmp_path, seeds="0-5", workers=2, threads=4, executor_option=options)
    script = SlurmExecutor().script(planned)
    said = directives(script)
    assert {"array=0-5%2", "cpus-per-task=4", "requeue", "exclusive"} <= set(said)
    assert {"partition=gpu", "gres=gpu:1", "time=2:00:00"} <= set(said)
    digests = [contest.jobs[0].unit for contest in planned.contests]
    assert len(set(digests)) == 6
    assert f"units=({' '.join(digests)})" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_paths_with_spaces_and_quotes_reach_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EQUIVBENCH_CACHE", "/some where/it's")
    exports = batch_script(plan(tmp_path), ["0" * 20]).splitlines()
    lines = [line for line in exports if line.startswith("export ")]
    shown = subprocess.run(
        ["bash", "-c", "\n".join([*lines, 'printf %s "$EQUIVBENCH_CACHE"'])],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "/some where/it's"


def test_a_task_imports_from_folders_of_the_users_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path))
    planned, names = plan(tmp_path), ("scripts", "stdlib", "purelib")
    of_the_interpreter = [sysconfig.get_path(name) for name in names]
    # As the command of an installed package has it: its own folder comes first.
    monkeypatch.setattr(sys, "path", of_the_interpreter)
    assert own_import_path() == ""
    assert "PYTHONPATH" not in batch_script(planned, ["0" * 20])
    monkeypatch.setattr(sys, "path", [str(tmp_path), *of_the_interpreter])
    assert own_import_path() == str(tmp_path)


def test_many_contests_are_several_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "MOST_TASKS", 4)
    script = SlurmExecutor().script(plan(tmp_path, seeds="0-9"))
    assert [line for line in directives(script) if line.startswith("array")] == [
        "array=0-3",
        "array=0-3",
        "array=0-1",
    ]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("array=0-3",), "--workers N"),
        (("output=x.log",), "logs lie in"),
        (("nodes=2",), "never leaves one node"),
        (("partition=a", "partition=b"), "twice"),
        (("two words",), "KEY=VALUE"),
        (("partition=a\n#SBATCH --nodes=9",), "KEY=VALUE"),
    ],
)
def test_options_that_are_not_the_users_are_refused(
    words: tuple[str, ...], why: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=why):
        plan(tmp_path, executor_option=words)


def test_devices_of_one_machine_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="are those of one machine"):
        plan(tmp_path, devices="cuda:0,cuda:1")


def test_without_slurm_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FailedError, match="needs sbatch, which is not here"):
        SlurmExecutor().run(planned, Callback())


@pytest.mark.parametrize("answers_at", [3, 1000])
def test_a_controller_that_is_busy_is_asked_again_to_put_a_task_back(
    answers_at: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = tmp_path / "asked"
    tool = tmp_path / "scontrol"
    tool.write_text(
        f'#!/bin/sh\necho "$@" >> {asked}\n'
        f"[ $(wc -l < {asked}) -ge {answers_at} ] && exit 0\n"
        "echo 'Socket timed out' >&2\nexit 1\n",
        encoding="utf-8",
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setattr(slurm_task, "_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(slurm_task, "_ASK_SECONDS", 60.0 if answers_at == 3 else 0.0)
    slurm_task.requeue()
    lines = asked.read_text(encoding="utf-8").splitlines()
    assert set(lines) == {"requeue 7_3"}
    if answers_at == 3:
        assert len(lines) == 3
        assert capsys.readouterr().err == ""
    else:
        said = "error: the time is up and scontrol does not requeue 7_3: Socket timed out\n"
        assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("seen", "looks"),
    [
        # Finished, and nothing in the queue: over at once.
        ([({"1_0"}, 0), (set(), 1)], 2),
        # Put back: in no queue for a moment, and there again.
        ([({"1_0"}, 0), (set(), 0), ({"1_0"}, 0), (set(), 1)], 4),
    ],
    ids=["finished", "requeued"],
)
def test_waiting_ends_when_all_is_finished_and_not_when_a_task_is_put_back(
    seen: list[tuple[set[str], int]], looks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan(tmp_path)
    folder = PlanFolder(tmp_path)
    units = folder.add(planned.contests)
    left = list(seen)
    monkeypatch.setattr(slurm, "in_queue", lambda jobs: left[0][0])
    monkeypatch.setattr(slurm, "count_finished", lambda *_: left.pop(0)[1])
    monkeypatch.setattr(slurm, "_LOOK_SECONDS", (0.0, 0.0))
    slurm._wait(["1"], units, folder, Callback(), Interrupt())
    assert len(seen) - len(left) == looks


def test_tasks_that_are_in_no_queue_and_not_finished_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = PlanFolder(tmp_path)
    units = folder.add(plan(tmp_path).contests)
    monkeypatch.setattr(slurm, "in_queue", lambda jobs: set())
    monkeypatch.setattr(slurm, "_LOOK_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(slurm, "_GONE_SECONDS", 0.2)
    began = time.monotonic()
    slurm._wait(["1"], units, folder, Callback(), Interrupt())
    assert time.monotonic() - began >= 0.2


def test_a_bare_key_is_a_flag() -> None:
    assert options_by_name(["exclusive", "--mem=4G"], {}) == {"exclusive": "", "mem": "4G"}


def test_the_names_of_the_executors_are_found() -> None:
    assert isinstance(find_executor("slurm"), SlurmExecutor)


def test_importing_it_needs_no_torch() -> None:
    code = "import sys, equivbench.execution.slurm; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
