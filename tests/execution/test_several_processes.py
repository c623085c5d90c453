"""Several processes on one plan: nothing is done twice, nothing is missing, whoever is killed.

Every test drives the real command line in processes of its own, with the toy package.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections import Counter

import pytest
from running import Bench, with_toys, workers_of
from waiting import wait_for

from equivbench.records.store import load_results

pytestmark = pytest.mark.slow
QUICK = ("--preset", "dev", "--threads", "1", "--quiet")
ARMS = ("equivariant", "augmented")
CONTESTS = int(os.environ.get("EQUIVBENCH_TEST_CONTESTS", "12"))
KILLS = int(os.environ.get("EQUIVBENCH_TEST_KILLS", "3"))
"""Contests of the test of many, and how often a process at them is killed. 200 with 20 kills take
longer than CI has, and ``--timeout 3600``."""


def states(bench: Bench) -> list[str]:
    ran = bench("status", str(bench.results), "--json")
    assert ran.code == 0, ran.err
    return [each["state"] for each in ran.json]


def test_two_caches_and_one_results_folder_in_one_second(
    bench: Bench, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = with_toys(tmp_path_factory.mktemp("other"))
    command: tuple[str, ...] = ("run", "toy/plain", *QUICK, "--device", "cpu")
    command = (*command, "--budget", "40steps", "--out", str(bench.results))
    started = [each.start(*command) for each in (bench, other)]
    for each, process in zip((bench, other), started, strict=True):
        ran = each.finish(process)
        assert ran.code == 0, ran.err
    records = load_results(bench.results)
    assert Counter(record.arm for record in records) == dict.fromkeys(ARMS, 2)
    assert len({record.contest for record in records}) == 2
    assert len({record.unit for record in records}) == 1
    # One waited for the other: there was one machine.
    assert all(record.run_id.endswith(record.contest) for record in records)
    assert bench("results", "validate", str(bench.results)).code == 0
    again = bench(*command, "--resume", "--json")
    assert [entry["reused"] for entry in again.json["records"]] == [True, True]


def test_who_joins_a_plan_waits_for_what_others_are_at_and_repeats_nothing(bench: Bench) -> None:
    command = ("run", "toy/slow", *QUICK, "--device", "cpu", "--budget", "300steps", "--resume")
    first = bench.start(*command)
    wait_for(lambda: bench.furthest() > 5)
    assert states(bench) == ["running"]
    second = bench.start(*command, "--json")
    bench.hurry()
    assert bench.finish(first).code == 0
    ran = bench.finish(second)
    assert ran.code == 0, ran.err
    assert "other processes are at work" in ran.err
    assert [entry["reused"] for entry in ran.json["records"]] == [True, True]
    assert states(bench) == ["done"]
    assert all(len(record["attempts"]) == 1 for record in bench.records())


def test_a_unit_runs_by_itself_and_goes_on_where_it_was_told_to_leave(bench: Bench) -> None:
    plan = bench.start(
        *("run", "toy/slow", *QUICK, "--device", "cpu", "--budget", "900steps", "--seeds", "3")
    )
    wait_for(lambda: bench.hindmost() > 5)
    plan.send_signal(signal.SIGUSR1)
    assert bench.finish(plan).code == 130
    assert states(bench) == ["waiting"]
    (unit,) = (bench.results / ".plan").glob("*.json")
    module = ("-m", "equivbench.execution.unit", str(unit), "--owner", "slurm:7_0")
    process = bench.start_python(*module)
    wait_for(lambda: states(bench) == ["running"])
    (standing,) = bench("status", str(bench.results), "--json").json
    assert (standing["owner"], standing["where"]) == ("slurm:7_0", "slurm 7_0 on cpu")
    wait_for(lambda: len(workers_of(process, "augmented")) == 1)
    process.kill()
    bench.finish(process)
    bench.hurry()
    # One that a scheduler starts again is the same owner: it does not wait.
    ran = bench.finish(bench.start_python(*module))
    assert ran.code == 0, ran.err
    records = bench.records()
    assert {record["arm"]: record["status"] for record in records} == dict.fromkeys(
        ARMS, "completed"
    )
    for record in records:
        ends = [attempt["ended"] for attempt in record["attempts"]]
        assert ends == ["interrupted", "died", "completed"]
        assert record["steps"] == 900 == record["budget"]["spent"]
    assert states(bench) == ["done"]
    assert bench.finish(bench.start_python(*module)).code == 0, "it is finished"
    assert bench.records() == records
    assert bench("results", "validate", str(bench.results)).code == 0


def test_many_contests_over_two_processes_of_which_some_are_killed(bench: Bench) -> None:
    seeds = CONTESTS // 2
    command: tuple[str, ...] = ("run", "toy/plain", "toy/slow", *QUICK, "--device", "cpu")
    command = (*command, "--budget", "60steps", "--seeds", f"0-{seeds - 1}", "--resume")
    chance = random.Random(0)
    running = [bench.start(*command) for _ in range(2)]
    for kill in range(KILLS):
        wait_for(lambda kill=kill: record_files(bench) > CONTESTS * kill // KILLS)
        found: list[subprocess.Popen[str]] = []
        wait_for(lambda found=found: bool(found.extend(filter(training, running)) or found))
        victim = chance.choice(found)
        victim.kill()
        bench.finish(victim)
        running[running.index(victim)] = bench.start(*command)
    bench.hurry()
    for process in running:
        ran = bench.finish(process)
        assert ran.code == 0, ran.err
    records = load_results(bench.results)
    done = Counter((record.pair, record.seed, record.arm) for record in records)
    expected = [
        (pair, seed, arm) for pair in ("plain", "slow") for seed in range(seeds) for arm in ARMS
    ]
    assert done == dict.fromkeys(expected, 1)
    assert {record.status for record in records} == {"completed"}
    assert {record.budget.spent for record in records} == {60.0}
    assert all(record.steps == 60 for record in records)
    by_unit = Counter(record.unit for record in records)
    assert set(by_unit.values()) == {2}
    assert len(by_unit) == CONTESTS
    assert states(bench) == ["done"] * CONTESTS
    died = {
        (record.unit, each.started)
        for record in records
        for each in record.attempts
        if each.ended == "died"
    }
    # A kill may come when the last record of a contest has been written.
    assert 0 < len(died) <= KILLS
    assert bench("results", "validate", str(bench.results)).code == 0


def record_files(bench: Bench) -> int:
    """How many records there are, without a look into them."""
    return sum(1 for _ in bench.results.rglob("dev-*-seed*.json"))


def training(process: subprocess.Popen[str]) -> bool:
    """Whether ``process`` has workers of both arms of ``toy/slow``, whose steps leave time for a
    kill: a contest of the other pair may be over before one comes."""
    return all(workers_of(process, arm, "toy/slow") for arm in ARMS)


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="there is one core, or this system pins no process",
)
def test_shares_of_the_cpu_have_a_contest_each_and_their_processes_keep_to_them(
    bench: Bench,
) -> None:
    command = ("run", "toy/slow", "--preset", "dev", "--quiet", "--budget", "400steps")
    process = bench.start(*command, "--devices", "cpu:0,cpu:1", "--seeds", "0-2", "--json")
    wait_for(lambda: len(bench.states()) == 4 and bench.hindmost() > 2)
    kept = [set(each.cpu_affinity()) for arm in ARMS for each in workers_of(process, arm)]
    assert states(bench).count("running") == 2
    bench.hurry()
    ran = bench.finish(process)
    assert ran.code == 0, ran.err
    places = {frozenset(each) for each in kept}
    assert len(kept) == 4
    assert len(places) == 2
    assert not frozenset.intersection(*places), "the two shares have no core in common"
    records = load_results(bench.results)
    assert Counter((record.seed, record.arm) for record in records) == {
        (seed, arm): 1 for seed in range(3) for arm in ARMS
    }
    by_contest = {record.contest: record.devices for record in records}
    assert all(record.devices == by_contest[record.contest] for record in records)
    assert {name for names in by_contest.values() for name in names} == {"cpu:0", "cpu:1"}
    assert {record.beside for record in records} == {1}
    assert len({record.environment.machine_key for record in records}) == 1
    assert bench("results", "validate", str(bench.results)).code == 0


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="there is one core",
)
def test_ctrl_c_ends_contests_side_by_side_and_both_go_on(bench: Bench) -> None:
    command: tuple[str, ...] = ("run", "toy/slow", "--preset", "dev", "--quiet")
    command = (*command, "--budget", "900steps", "--devices", "cpu:0,cpu:1", "--seeds", "0,1")
    process = bench.start(*command)
    wait_for(lambda: len(bench.states()) == 4 and bench.hindmost() > 2)
    process.send_signal(signal.SIGINT)
    ran = bench.finish(process)
    assert ran.code == 130
    assert {record["status"] for record in bench.records()} == {"interrupted"}
    assert len(bench.records()) == 4
    bench.hurry()
    again = bench(*command, "--resume")
    assert again.code == 0, again.err
    assert [record["status"] for record in bench.records()] == ["completed"] * 4
    assert {record["steps"] for record in bench.records()} == {900}
