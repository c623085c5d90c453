"""The executor ``slurm`` on a real Slurm of two nodes on this machine: an array, a time limit, a
requeue, preemption, a killed task. The finished set is the expected one, no record twice."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from waiting import wait_for

from equivbench.records.schema import RunRecord
from equivbench.records.store import load_results

CLUSTER = Path(__file__).parents[1] / "support" / "slurm_cluster.sh"
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a Slurm that is up."""
    folder = tmp_path_factory.mktemp("slurm")
    up = subprocess.run(
        ["bash", CLUSTER, "up", folder], capture_output=True, text=True, check=False
    )
    if up.returncode == 77:
        pytest.skip(up.stderr.strip().splitlines()[-1])
    assert up.returncode == 0, up.stderr
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    yield folder
    subprocess.run(["bash", CLUSTER, "down", folder], check=False)
    del os.environ["SLURM_CONF"]


@pytest.fixture
def results(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder; its cache is that of all nodes."""
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "results"
    subprocess.run(["scancel", "--user=root"], check=False, capture_output=True)
    wait_for(lambda: not queue())


def queue(what: str = "%T") -> list[str]:
    """What squeue says of every task."""
    found = subprocess.run(
        ["squeue", "-h", "-r", "-o", what], capture_output=True, text=True, check=True
    )
    return found.stdout.splitlines()


def equivbench(results: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command line, run to its end."""
    command = [sys.executable, "-m", "equivbench", *words, "--out", str(results)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def submitted(results: Path, seeds: str, budget: str, *words: str) -> str:
    """The number of the job of a plan that nobody waits for."""
    arguments = ["run", "forcefield/vector", "--preset", "dev", "--seeds", seeds, "--rungs", "0"]
    done = equivbench(
        results, *arguments, "--budget", budget, "--executor", "slurm", "--detach", *words
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.partition("Slurm job ")[2].split(";")[0]


def at_once(job: str) -> None:
    """Undo the two minutes for which Slurm holds what it has requeued."""
    subprocess.run(
        ["scontrol", "update", f"jobid={job}", "starttime=now"], capture_output=True, check=False
    )


def over() -> bool:
    """Whether nothing is in the queue; what is held after a requeue is let go."""
    for line in queue("%F_%K:%T:%r"):
        task, state, reason = line.split(":")
        if state == "PENDING" and reason == "BeginTime":
            at_once(task)
    return not queue()


def records_of(results: Path, seeds: int) -> list[RunRecord]:
    """The records, which are those of ``seeds`` seeds of two arms, each once and whole."""
    records = load_results(results)
    runs = Counter((each.arm, each.seed) for each in records)
    assert runs == {(a, s): 1 for a in ("equivariant", "augmented") for s in range(seeds)}
    assert {each.status for each in records} == {"completed"}
    assert len({(each.contest, each.seed) for each in records}) == seeds
    return records


def states(results: Path) -> Counter[str]:
    """How many contests stand where, by `equivbench status`."""
    done = subprocess.run(
        [sys.executable, "-m", "equivbench", "status", str(results), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    return Counter(each["state"] for each in json.loads(done.stdout))


def running_steps(results: Path) -> int:
    """Steps that some task has told of."""
    done = subprocess.run(
        [sys.executable, "-m", "equivbench", "status", str(results), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    plan = json.loads(done.stdout) if done.returncode == 0 else []
    return max((arm["step"] for unit in plan for arm in unit["progress"].values()), default=0)


def test_an_array_runs_to_its_end_while_the_command_waits(results: Path) -> None:
    done = equivbench(
        results,
        *("run", "forcefield/vector", "--preset", "dev", "--budget", "20steps", "--rungs", "0"),
        *("--seeds", "0-3", "--executor", "slurm", "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["records"]) == 8
    assert {each.steps for each in records_of(results, 4)} == {20}
    assert states(results) == {"done": 4}


def tasks(results: Path) -> list[psutil.Process]:
    """The processes of the tasks of this plan."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "equivbench.execution.slurm_task" in process.cmdline() and process.cwd() == str(
                results / ".plan"
            ):
                found.append(process)
    return found


def test_requeued_preempted_and_killed_tasks_go_on_where_they_were(results: Path) -> None:
    words = ("--threads", "1")
    job = submitted(results, "0-2", "8s", *words)
    wait_for(lambda: running_steps(results) > 0)
    # By hand.
    subprocess.run(["scontrol", "requeue", f"{job}_0"], check=True)
    # By somebody more important, who needs both nodes.
    urgent = ["sbatch", "-p", "urgent", "-N", "2", "--wrap", "sleep 1", "-o", "/dev/null"]
    subprocess.run(urgent, check=True, capture_output=True)
    wait_for(lambda: bool(over() or tasks(results)))
    # As if its node had been cut off: nothing is saved, and Slurm takes it for over.
    victims = tasks(results)
    for process in victims[:1]:
        process.kill()
    # What is being requeued is in no queue for a moment.
    wait_for(over)
    time.sleep(3.0)
    wait_for(over)
    if states(results) != {"done": 3}:
        submitted(results, "0-2", "8s", *words, "--resume")
        wait_for(over)
    records = records_of(results, 3)
    for record in records:
        assert 8.0 <= record.budget.spent <= 9.0
        assert record.budget.overshoot == pytest.approx(record.budget.spent - 8.0)
    assert max(len(record.attempts) for record in records) >= 2
    assert states(results) == {"done": 3}


def test_a_plan_that_is_in_the_queue_is_not_submitted_twice(results: Path) -> None:
    job = submitted(results, "0", "8s", "--threads", "1")
    again = equivbench(
        results,
        *("run", "forcefield/vector", "--preset", "dev", "--seeds", "0", "--rungs", "0"),
        *("--budget", "8s", "--threads", "1", "--executor", "slurm", "--resume"),
    )
    assert again.returncode == 0, again.stderr
    assert "in the queue or running, and not submitted again" in again.stderr
    assert "submitted 1" not in again.stderr
    assert queue("%F") == []
    assert {record.contest for record in records_of(results, 1)}
    assert subprocess.run(
        ["scontrol", "show", "job", str(int(job) + 1)], capture_output=True, check=False
    ).returncode


@pytest.mark.xfail(reason="once waited in vain beside a whole suite; not understood", strict=False)
def test_a_task_whose_time_is_up_goes_back_into_the_queue(results: Path) -> None:
    job = submitted(results, "0", "12s", "--threads", "1")
    wait_for(lambda: running_steps(results) > 0)
    # What Slurm sends to the batch process that long before its limit.
    subprocess.run(["scancel", "--signal=USR1", "--batch", f"{job}_0"], check=True)
    wait_for(lambda: bool(over() and states(results) == {"done": 1}))
    for record in records_of(results, 1):
        assert record.restarts >= 1
        assert record.lost_seconds == pytest.approx(0.0, abs=0.5)
        assert 12.0 <= record.budget.spent <= 13.0


def test_what_sbatch_refuses_is_one_sentence(results: Path) -> None:
    words = ("run", "forcefield/vector", "--preset", "dev", "--executor", "slurm")
    done = equivbench(results, *words, "--executor-option", "partition=nowhere")
    assert done.returncode == 3
    assert "sbatch refused the jobs" in done.stderr
    assert "Traceback" not in done.stderr
