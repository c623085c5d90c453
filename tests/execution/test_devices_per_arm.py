"""``run --devices-per-arm``: an arm on shares of the CPU, each a process; its record, a killed
rank, what makes no sense."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch.distributed as dist
from dev_jobs import dev_job
from pretend_cores import machine
from running import Bench, lives, workers_of
from waiting import wait_for
from warm import WarmPopen, children

from equivbench.errors import FailedError, UsageError
from equivbench.execution.plan import machines_of, make_plan
from equivbench.execution.ray import RayExecutor
from equivbench.execution.replicas import Replicas
from equivbench.execution.slurm import SlurmExecutor
from equivbench.execution.state import on_machine
from equivbench.execution.workers import begin_command
from equivbench.records.store import load_results
from equivbench.request import RunRequest
from equivbench.training.assembly import build_trainer
from equivbench.training.job import Job, Place
from equivbench.training.loop import Trainer

two_cores = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two shares need two cores")
TOGETHER = (
    *("--preset", "dev", "--device", "cpu", "--threads", "1", "--quiet"),
    *("--devices-per-arm", "2"),
)
ALONE = TOGETHER[:-2]


def losses(record: dict[str, Any]) -> list[float]:
    points = [*record["trace"], *record["rungs"]]
    return [point["test"]["total"] for point in points]


@pytest.mark.slow
@two_cores
def test_two_processes_train_as_one_does_and_the_records_are_valid(bench: Bench) -> None:
    for options in (TOGETHER, ALONE):
        ran = bench("run", "toy/plain", *options, "--budget", "40steps")
        assert ran.code == 0, ran.err
    both = {(each["devices_per_arm"], each["arm"]): each for each in bench.records()}
    assert len(both) == 4
    for arm in ("equivariant", "augmented"):
        one, two = both[1, arm], both[2, arm]
        assert losses(two) == pytest.approx(losses(one), rel=1e-4)
        assert (one["devices"], two["devices"]) == (["cpu"], ["cpu:0", "cpu:1"])
        key = one["environment"]["machine_key"]
        assert two["environment"]["machine_key"] == f"{key}-x2"
        assert one["throughput"]["scaling_efficiency"] is None
        assert 0 < two["throughput"]["scaling_efficiency"] < 10
    assert both[2, "equivariant"]["model"]["symmetry_verified"] is True
    checked = bench("results", "validate", str(bench.results))
    assert checked.code == 0, checked.out
    # Runs on one device and on two are in rows of their own.
    assert len(bench("gap", str(bench.results), "--json").json) == 2


TASKS = [
    ("forcefield/vector", "augmented", {"forces": "direct"}),
    ("forcefield/vector", "equivariant", {"forces": "conservative"}),
    ("flow/vector-head", "equivariant", {}),
    ("voxel/octahedral", "augmented", {}),
]


@contextmanager
def led(job: Job, patch: pytest.MonkeyPatch) -> Iterator[Trainer]:
    """The trainer of ``job`` as the first of two ranks, the other one in a process of its own."""
    patch.setattr(subprocess, "Popen", WarmPopen)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR"):
        patch.setenv(name, "")
    patch.setenv("MASTER_PORT", "")
    replicas = Replicas(begin_command(job))
    try:
        yield build_trainer(job, ranks=replicas.join())
    finally:
        replicas.close()
        if dist.is_initialized():
            dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "arm", "variant"), TASKS)
def test_every_task_has_the_losses_of_one_device_to_rounding(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pair: str,
    arm: str,
    variant: dict[str, str],
) -> None:
    def job(folder: str, *further: Place) -> Job:
        change: dict[str, Any] = {"variant": variant, "split": "validation", "replicas": further}
        return dev_job(tmp_path / folder, pair, arm, budget="6steps", **change)

    alone = build_trainer(job("alone"))
    alone.train_slice(1e9)
    with led(job("together", Place("cpu", "cpu:1")), monkeypatch) as together:
        together.train_slice(1e9)
        together.compare_ranks()
    # Adam makes whole steps of gradients that are nothing but rounding: what begins as 1e-7 grows.
    assert together.watch.recent == pytest.approx(alone.watch.recent, rel=1e-3)
    assert together.facts.final is not None
    assert alone.facts.final is not None
    assert together.facts.final.total == pytest.approx(alone.facts.final.total, rel=1e-3)
    # Two devices do compute something else, if only in its last digits.
    assert together.facts.final.total != alone.facts.final.total


@pytest.mark.slow
@two_cores
def test_a_budget_in_seconds_is_device_seconds(bench: Bench) -> None:
    ran = bench("run", "toy/plain", "--arm", "augmented", *TOGETHER, "--budget", "1s")
    assert ran.code == 0, ran.err
    (record,) = load_results(bench.results)
    assert record.budget.spent == pytest.approx(record.clock.train + record.clock.data)
    assert 1.0 <= record.budget.spent < 2.0


@pytest.mark.slow
@two_cores
def test_a_killed_rank_ends_the_run_and_resume_goes_on(bench: Bench) -> None:
    command = ("run", "toy/slow", "--arm", "augmented", *TOGETHER, "--budget", "150steps")
    process = bench.start(*command)
    wait_for(lambda: bench.hindmost() > 40)
    (worker,) = workers_of(process, "augmented")
    (rank,) = children(worker.pid)
    os.kill(rank, signal.SIGKILL)
    ran = bench.finish(process)
    assert ran.code == 3
    assert "rank 1 of toy/slow augmented seed 0, on cpu:1, was killed by SIGKILL" in ran.err
    assert "Traceback" not in ran.err
    (record,) = bench.records()
    assert (record["status"], record["devices_per_arm"]) == ("failed", 2)
    assert record["steps"] >= 40
    bench.hurry()
    again = bench(*command, "--resume")
    assert again.code == 0, again.err
    (record,) = bench.records()
    assert (record["status"], record["restarts"], record["steps"]) == ("completed", 1, 150)


@pytest.mark.slow
@two_cores
def test_a_rank_that_is_killed_while_the_worker_waits_ends_it_too(bench: Bench) -> None:
    """While the other arm has the machine, a worker asks nothing of its other ranks."""
    process = bench.start("run", "toy/slow", *TOGETHER, "--budget", "900steps")
    wait_for(lambda: len(bench.states()) == 2 and bench.hindmost() > 20)
    for arm in ("equivariant", "augmented"):
        (worker,) = workers_of(process, arm)
        for rank in children(worker.pid):
            os.kill(rank, signal.SIGKILL)
    ran = bench.finish(process)
    assert ran.code == 3
    for arm in ("equivariant", "augmented"):
        assert f"rank 1 of toy/slow {arm} seed 0, on cpu:1, was killed by SIGKILL" in ran.err
    assert {record["status"] for record in bench.records()} == {"failed"}


@pytest.mark.slow
@two_cores
def test_what_ended_an_arm_is_said_while_the_other_one_trains(bench: Bench) -> None:
    process = bench.start("run", "toy/slow", *TOGETHER, "--budget", "900steps")
    wait_for(lambda: len(bench.states()) == 2 and bench.hindmost() > 20)
    (worker,) = workers_of(process, "augmented")
    (rank,) = children(worker.pid)
    os.kill(rank, signal.SIGKILL)
    assert process.stderr is not None
    said = next(line for line in process.stderr if "was killed by SIGKILL" in line)
    assert said.startswith("note: ")
    assert said.endswith("; the other arm goes on\n")
    assert process.poll() is None
    assert bench.furthest() < 900
    bench.hurry()
    ran = bench.finish(process)
    assert ran.code == 3
    assert "was killed by SIGKILL" in ran.err
    statuses = {record["arm"]: record["status"] for record in bench.records()}
    assert statuses == {"equivariant": "completed", "augmented": "failed"}


@pytest.mark.slow
@two_cores
def test_ctrl_c_ends_an_arm_of_which_a_rank_is_stopped_within_seconds(bench: Bench) -> None:
    # Processes that are forked are no children of the worker's.
    process = replace(bench, cold=True).start(
        "run", "toy/slow", "--arm", "augmented", *TOGETHER, "--budget", "900steps"
    )
    wait_for(lambda: bench.hindmost() > 20)
    started = psutil.Process(process.pid).children(recursive=True)
    (rank,) = [each for each in started if each.cmdline()[-1].endswith("rank 1")]
    rank.suspend()
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    ran = bench.finish(process)
    # One that may only be slow has half a minute.
    assert time.monotonic() - began < 25
    assert ran.code == 130
    assert "toy/slow augmented seed 0 rank 1 is stopped (SIGSTOP)" in ran.err
    (record,) = bench.records()
    assert record["status"] == "failed"
    assert "is stopped" in record["reason"]
    # Whoever adopts it may never ask how it ended.
    assert not lives(rank.pid)


@pytest.mark.slow
@two_cores
def test_a_network_that_keeps_what_it_saw_of_its_batches_is_refused(bench: Bench) -> None:
    ran = bench("run", "toy/remembers", "--arm", "augmented", *TOGETHER)
    assert ran.code == 3
    assert "such as model.seen, are no longer those of rank 0" in ran.err


@pytest.mark.slow
@two_cores
def test_what_a_network_raises_on_another_rank_is_what_the_user_is_told(bench: Bench) -> None:
    ran = bench("run", "toy/raises-on-one", "--arm", "equivariant", *TOGETHER)
    assert ran.code == 3
    assert "the toy model was told to raise" in ran.err
    (record,) = bench.records()
    assert record["status"] == "failed"


@pytest.mark.slow
@two_cores
def test_two_processes_train_a_compiled_network(bench: Bench) -> None:
    """Traced and differentiated ahead of time, that is; C++ is not made of it, which takes long."""
    for pair, options in (("toy/compiled", TOGETHER), ("toy/plain", ALONE)):
        ran = bench("run", pair, "--arm", "augmented", *options, "--budget", "40steps")
        assert ran.code == 0, ran.err
    compiled, eager = sorted(bench.records(), key=lambda record: str(record["pair"]))
    assert compiled["recipe"]["compile"] is not None
    assert compiled["clock"]["compile"] > 0
    assert losses(compiled) == pytest.approx(losses(eager), rel=1e-3)


@pytest.mark.slow
@two_cores
def test_two_processes_train_conservative_forces_that_are_compiled(bench: Bench) -> None:
    """By the route of the real ones, up to the C++."""
    source = Path(__file__).parents[1] / "support" / "traced_forces.py"
    shutil.copy(source, bench.folder / "site")
    bench.entry_point("traced_forces", "traced-forces")
    for pair, options in (("traced/compiled", TOGETHER), ("traced/eager", ALONE)):
        ran = bench("run", pair, "--arm", "equivariant", "--forces", "conservative", *options)
        assert ran.code == 0, ran.err
    compiled, eager = sorted(bench.records(), key=lambda record: str(record["pair"]))
    assert (compiled["devices_per_arm"], eager["devices_per_arm"]) == (2, 1)
    assert compiled["recipe"]["compile"] is not None
    assert compiled["clock"]["compile"] > 0
    assert losses(compiled) == pytest.approx(losses(eager), rel=1e-3)
    assert losses(compiled) != losses(eager)


def test_the_devices_of_an_arm_are_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 8, 1)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (whole,) = machines_of(RunRequest(device="cpu", devices_per_arm=4, threads=2))
    assert whole.names == ["cpu:0", "cpu:1", "cpu:2", "cpu:3"]
    assert whole.kind.endswith("-2t-x4")
    assert {*whole.cpus}.isdisjoint(cpu for each in whole.further for cpu in each.cores)
    names = tuple(f"cpu:{number}" for number in range(4))
    first, second = machines_of(RunRequest(devices=names, devices_per_arm=2, threads=1))
    assert (first.names, second.names) == (["cpu:0", "cpu:1"], ["cpu:2", "cpu:3"])
    plan = make_plan(RunRequest(preset="dev", devices=names, devices_per_arm=2))
    job = on_machine(plan.contests[0], second).jobs[0]
    assert (job.devices, [place.name for place in job.replicas]) == (["cpu:2", "cpu:3"], ["cpu:3"])
    assert list(job.replicas[0].cores) != job.cores
    with pytest.raises(FailedError, match="9 shares of the CPU are asked for"):
        machines_of(RunRequest(device="cpu", devices_per_arm=9))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"devices_per_arm": 0}, "--devices-per-arm must be between 1 and 64, not 0"),
        (
            {"devices": ("cpu:0", "cpu:1", "cpu:2"), "devices_per_arm": 2},
            "--devices names 3 devices, which cannot be shared among arms of 2 each",
        ),
        ({"device": "cuda:1", "devices_per_arm": 2}, "--device cuda:1 is one device"),
    ],
)
def test_numbers_of_devices_that_make_no_sense_are_usage_errors(
    asked: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        make_plan(RunRequest(**asked))


def test_a_cluster_is_asked_for_as_many_devices(tmp_path: Path) -> None:
    scripts = {}
    for name, executor in (("slurm", SlurmExecutor()), ("ray", RayExecutor())):
        request = RunRequest(
            preset="dev",
            out=str(tmp_path),
            device="cuda",
            threads=2,
            devices_per_arm=4,
            executor=name,
        )
        scripts[name] = executor.script(executor.resolve(make_plan(request)))
    assert "--cpus-per-task=8" in scripts["slurm"]
    assert "'num_cpus': 8" in scripts["ray"]
    assert "'num_gpus': 4" in scripts["ray"]


@pytest.mark.parametrize(("devices", "cpus"), [(1, None), (4, "4")])
def test_each_device_of_a_slurm_job_has_a_cpu_where_no_threads_are_asked_for(
    tmp_path: Path, devices: int, cpus: str | None
) -> None:
    request = RunRequest(preset="dev", out=str(tmp_path), devices_per_arm=devices, executor="slurm")
    executor = SlurmExecutor()
    script = executor.script(executor.resolve(make_plan(request)))
    assert re.findall("--cpus-per-task=(.*)", script) == ([] if cpus is None else [cpus])
