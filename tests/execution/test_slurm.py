"""The executor ``slurm`` on a real Slurm of three nodes on this machine: an array, a time limit,
a requeue, preemption, a killed task. The finished set is the expected one, no record twice."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import psutil
import pytest
from waiting import wait_for

from equivbench.errors import FailedError
from equivbench.execution.planned import PlanFolder
from equivbench.execution.slurm import _SILENT
from equivbench.execution.standing import UnitStanding, standings
from equivbench.records.schema import RunRecord
from equivbench.records.store import load_results

CLUSTER = Path(__file__).parents[1] / "support" / "slurm_cluster.sh"
pytestmark = pytest.mark.cluster
LOOK = 0.3
"""Seconds between two looks at Slurm: its controller has the tasks to answer too."""


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
    wait_for(lambda: not queue(), every=LOOK)


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


def over() -> bool:
    """Whether nothing is in the queue; what is held for two minutes after a requeue is let go in
    three seconds.

    Not at once: a node takes no job that it ended within the same second, and Slurm, told so, gives
    the job up ("Job credential revoked").
    """
    for line in queue("%F_%K|%T|%r|%S"):
        task, state, reason, start = line.split("|")
        # For a moment nobody has said when it starts.
        if (state, reason) == ("PENDING", "BeginTime") and start != "N/A":
            held = datetime.fromisoformat(start) - datetime.now()
            if held.total_seconds() > 10:
                command = ["scontrol", "update", f"jobid={task}", "starttime=now+3"]
                subprocess.run(command, capture_output=True, check=False)
    return not queue()


def records_of(results: Path, seeds: int) -> list[RunRecord]:
    """The records, which are those of ``seeds`` seeds of two arms, each once and whole."""
    records = load_results(results)
    runs = Counter((each.arm, each.seed) for each in records)
    assert runs == {(a, s): 1 for a in ("equivariant", "augmented") for s in range(seeds)}
    assert {each.status for each in records} == {"completed"}
    assert len({(each.contest, each.seed) for each in records}) == seeds
    return records


def plan_of(results: Path) -> list[UnitStanding]:
    """Where each contest stands; none before there is a plan."""
    try:
        return standings(results)
    except FailedError:
        return []


def states(results: Path) -> Counter[str]:
    """How many contests stand where."""
    return Counter(each.state for each in plan_of(results))


def running_steps(results: Path) -> int:
    """Steps that some task has told of."""
    arms = (arm for unit in plan_of(results) for arm in unit.progress.values())
    return max((arm.step for arm in arms), default=0)


def wait_in(results: Path, condition: Callable[[], bool]) -> None:
    """Wait for ``condition``; where that is in vain, what Slurm and the tasks say is the failure's
    message."""
    try:
        wait_for(condition, every=LOOK)
    except AssertionError:
        logs = [f"{each.name}: {each.read_text()[-2000:]}" for each in results.rglob("slurm-*.log")]
        nodes = subprocess.run(["sinfo", "-N", "-l"], capture_output=True, text=True, check=False)
        said = [*queue("%F_%K %T %r"), str(states(results)), nodes.stdout, *logs]
        pytest.fail("waited in vain:\n" + "\n".join(said))


def test_an_array_runs_to_its_end_while_commands_wait_and_is_not_submitted_twice(
    results: Path,
) -> None:
    words = (
        *("run", "forcefield/vector", "--preset", "dev", "--budget", "20steps", "--rungs", "0"),
        *("--seeds", "0,1", "--threads", "1", "--executor", "slurm", "--json"),
    )
    first = subprocess.Popen(
        [sys.executable, "-m", "equivbench", *words, "--out", str(results)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_in(results, lambda: len(queue()) == 2)
    again = equivbench(results, *words, "--resume")
    assert again.returncode == 0, again.stderr
    assert "not submitted again, as in the queue or running: 2 contests" in again.stderr
    assert "as Slurm job" not in again.stderr
    out, err = first.communicate(timeout=600)
    assert first.returncode == 0, err
    assert [len(json.loads(each)["records"]) for each in (out, again.stdout)] == [4, 4]
    assert {each.steps for each in records_of(results, 2)} == {20}
    assert queue("%F") == []
    job = err.partition("as Slurm job ")[2].split(";")[0]
    # Its two tasks have a number each.
    assert subprocess.run(
        ["scontrol", "show", "job", str(int(job) + 2)], capture_output=True, check=False
    ).returncode
    told = subprocess.run(
        [sys.executable, "-m", "equivbench", "status", str(results), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [each["state"] for each in json.loads(told.stdout)] == ["done"] * 2


def test_an_arm_has_several_shares_of_a_node(results: Path) -> None:
    done = equivbench(
        results,
        *("run", "forcefield/vector", "--preset", "dev", "--budget", "20steps", "--rungs", "0"),
        *("--arm", "equivariant", "--threads", "1", "--devices-per-arm", "2"),
        *("--executor", "slurm", "--executor-option", "partition=wide"),
    )
    assert done.returncode == 0, done.stderr
    (record,) = load_results(results)
    assert (record.status, record.steps, record.devices_per_arm) == ("completed", 20, 2)
    assert record.devices == ["cpu:0", "cpu:1"]
    assert record.environment.machine_key.endswith("-1t-x2")


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


def is_silent(results: Path) -> bool:
    """Whether no task has renewed its lease for so long that one which Slurm has ended is over."""
    folder = PlanFolder(results)
    leases = [folder.leases(unit.digest) for unit in folder.units()]
    return all(each.current() is None or each.age() > _SILENT for each in leases)


def test_requeued_preempted_and_killed_tasks_go_on_where_they_were(results: Path) -> None:
    words = ("0,1", "4s", "--threads", "1")
    job = submitted(results, *words)
    wait_in(results, lambda: running_steps(results) > 0)
    # By hand.
    subprocess.run(["scontrol", "requeue", f"{job}_0"], check=True)
    # By somebody more important, who needs both nodes.
    urgent = ["sbatch", "-p", "urgent", "-N", "2", "--wrap", "sleep 1", "-o", "/dev/null"]
    subprocess.run(urgent, check=True, capture_output=True)
    wait_in(results, lambda: over() or bool(tasks(results)))
    # As if its node had been cut off: nothing is saved, and Slurm takes it for over.
    victims = tasks(results)
    for process in victims[:1]:
        process.kill()
    # What is being requeued is in no queue for a moment.
    wait_in(results, over)
    time.sleep(3.0)
    wait_in(results, over)
    if states(results) != {"done": 2}:
        wait_in(results, lambda: is_silent(results))
        submitted(results, *words, "--resume")
        wait_in(results, over)
    records = records_of(results, 2)
    for record in records:
        assert 4.0 <= record.budget.spent <= 5.0
        assert record.budget.overshoot == pytest.approx(record.budget.spent - 4.0)
    assert max(len(record.attempts) for record in records) >= 2
    assert states(results) == {"done": 2}


def test_a_task_whose_time_is_up_goes_back_into_the_queue(results: Path) -> None:
    job = submitted(results, "0", "4s", "--threads", "1")
    wait_in(results, lambda: running_steps(results) > 0)
    # What Slurm sends to the batch process that long before its limit.
    subprocess.run(["scancel", "--signal=USR1", "--batch", f"{job}_0"], check=True)
    wait_in(results, lambda: over() and states(results) == {"done": 1})
    for record in records_of(results, 1):
        assert record.restarts >= 1
        assert record.lost_seconds == pytest.approx(0.0, abs=0.5)
        assert 4.0 <= record.budget.spent <= 5.0


def test_what_sbatch_refuses_is_one_sentence(results: Path) -> None:
    words = ("run", "forcefield/vector", "--preset", "dev", "--executor", "slurm")
    done = equivbench(results, *words, "--executor-option", "partition=nowhere")
    assert done.returncode == 3
    assert "sbatch refused the jobs" in done.stderr
    assert "Traceback" not in done.stderr
