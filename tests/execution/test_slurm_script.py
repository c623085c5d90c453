"""What the executor ``slurm`` hands to sbatch, and what it refuses, without a Slurm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from equivbench.errors import FailedError, UsageError
from equivbench.execution import slurm
from equivbench.execution.cluster import options_by_name
from equivbench.execution.executors import Callback, find_executor
from equivbench.execution.plan import RunPlan, make_plan
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


def test_a_bare_key_is_a_flag() -> None:
    assert options_by_name(["exclusive", "--mem=4G"], {}) == {"exclusive": "", "mem": "4G"}


def test_the_names_of_the_executors_are_found() -> None:
    assert isinstance(find_executor("slurm"), SlurmExecutor)


def test_importing_it_needs_no_torch() -> None:
    code = "import sys, equivbench.execution.slurm; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
