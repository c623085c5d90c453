"""Runs that are killed, stopped, starved of disk or lied to: the documented exit code, one
sentence, nothing else lost.

Every test drives the real command line in processes of its own, with the toy package found through
its entry points.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import replace
from typing import Any

import pytest
from many_kills import curve, kill_often, weights
from running import Bench, Ran, workers_of
from waiting import wait_for

from equivbench.environment import machine_key
from equivbench.records.consistency import CONSISTENCY
from equivbench.records.rules import broken_rules
from equivbench.records.store import load_results
from equivbench.training.clock import PARTS

pytestmark = pytest.mark.slow
QUICK = ("--preset", "dev", "--device", "cpu", "--threads", "1", "--quiet")
SLOW = ("run", "toy/slow", *QUICK, "--budget", "400steps")
# A slice takes 2 s and a step at least 20 ms, so no arm can end such a run within its first slices,
# however fast the machine.
SEVERAL_SLICES = ("run", "toy/slow", *QUICK, "--budget", "900steps")


def by_arm(bench: Bench) -> dict[str, dict[str, Any]]:
    records = {record["arm"]: record for record in bench.records()}
    assert len(records) == len(bench.records())
    return records


def one_sentence(ran: Ran) -> str:
    """The only error line; there is no traceback."""
    assert "Traceback" not in ran.err
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ran.err
    return errors[0]


def test_a_plug_in_pair_runs_with_no_change_here_and_its_records_are_valid(bench):
    ran = bench("run", "toy/plain", *QUICK, "--json")
    assert ran.code == 0, ran.err
    assert {entry["arm"] for entry in ran.json["records"]} == {"equivariant", "augmented"}
    for record in load_results(bench.results):
        assert record.status == "completed"
        assert record.throughput.alternated_with not in (None, record.arm)
        assert record.budget.spent == 200 == record.steps
        # The parts are read from one clock, so they add up to rounding.
        assert sum(getattr(record.clock, part) for part in PARTS) == pytest.approx(
            record.clock.wall, rel=1e-9
        )
    by = {record.arm: record for record in load_results(bench.results)}
    assert by["equivariant"].model.symmetry_verified is True
    assert by["augmented"].model.symmetry_verified is None


def test_a_false_claim_of_symmetry_is_recorded_and_flagged(bench):
    ran = bench("run", "toy/liar", *QUICK, "--arm", "equivariant")
    assert ran.code == 0, ran.err
    assert by_arm(bench)["equivariant"]["model"]["symmetry_verified"] is False
    assert "symmetry" in ran.out


def test_killed_at_20_50_and_80_percent_it_ends_like_an_unbroken_run(bench, tmp_path_factory):
    whole = Bench(tmp_path_factory.mktemp("whole"))
    (whole.folder / "site").symlink_to(bench.folder / "site")
    whole.hurry()
    assert whole(*SLOW, "--arm", "equivariant").code == 0
    lost = kill_often(bench, (*SLOW, "--arm", "equivariant"), "equivariant", [80, 200, 320])
    bench.hurry()
    ended = bench(*SLOW, "--arm", "equivariant", "--resume")
    assert ended.code == 0, ended.err
    (record,), (expected,) = bench.records(), whole.records()
    assert record["status"] == "completed"
    assert record["restarts"] == 3
    # Both sides add the same few doubles.
    assert record["lost_seconds"] == pytest.approx(lost, abs=1e-9)
    assert curve(record) == curve(expected)
    assert weights(bench.states()[0]) == weights(whole.states()[0])


def test_when_one_arm_is_killed_the_other_ends_and_resume_repeats_only_the_killed_one(bench):
    process = bench.start(*SLOW)
    wait_for(lambda: bool(workers_of(process, "augmented")) and bench.hindmost() > 20)
    workers_of(process, "augmented")[0].kill()
    bench.hurry()
    ran = bench.finish(process)
    assert ran.code == 3
    assert "augmented seed 0" in one_sentence(ran)
    kept, killed = by_arm(bench)["equivariant"], by_arm(bench)["augmented"]
    assert kept["status"] == "completed"
    # Of three seeds two finished: that can be said because the third left a record.
    assert (killed["status"], killed["samples"]) == ("failed", 32 * killed["steps"])
    assert killed["steps"] > 20
    assert "was killed by SIGKILL" in killed["reason"]
    (checked,) = [each for each in load_results(bench.results) if each.arm == "augmented"]
    assert list(broken_rules(checked, CONSISTENCY)) == []
    again = bench(*SLOW, "--resume", "--json")
    assert again.code == 0, again.err
    assert {entry["arm"]: entry["reused"] for entry in again.json["records"]} == {
        "equivariant": True,
        "augmented": False,
    }
    assert by_arm(bench)["equivariant"] == kept
    assert by_arm(bench)["augmented"]["status"] == "completed"


def test_ctrl_c_saves_says_how_to_resume_and_resume_goes_on(bench):
    process = bench.start(*SEVERAL_SLICES, "--seeds", "5")
    wait_for(lambda: len(bench.states()) == 2 and bench.hindmost() > 20)
    process.send_signal(signal.SIGINT)
    ran = bench.finish(process)
    bench.hurry()
    assert ran.code == 130
    command = one_sentence(ran).partition("go on with: ")[2].split()
    assert command[0] == "equivbench"
    assert command[-1] == "--resume"
    interrupted = by_arm(bench)
    assert {record["status"] for record in interrupted.values()} == {"interrupted"}
    assert all(record["reason"] for record in interrupted.values())
    again = bench(*command[1:])
    assert again.code == 0, again.err
    for arm, record in by_arm(bench).items():
        assert record["status"] == "completed"
        assert record["run_id"] == interrupted[arm]["run_id"]
        # All was saved at the interruption, so the clock and the steps go on from there.
        assert record["steps"] == 900 > interrupted[arm]["steps"] > 0
        assert record["clock"]["train"] > interrupted[arm]["clock"]["train"]
    before = by_arm(bench)
    once_more = bench(*SEVERAL_SLICES, "--seeds", "5", "--resume", "--json")
    assert once_more.code == 0
    assert all(entry["reused"] for entry in once_more.json["records"])
    assert by_arm(bench) == before


def test_workers_do_not_outlive_an_orchestrator_that_is_killed_and_save_what_they_have(bench):
    process = bench.start(*SLOW, "--arm", "augmented", "--budget", "2000steps")
    wait_for(lambda: bench.furthest() > 50)
    (worker,) = workers_of(process, "augmented")
    process.kill()
    bench.finish(process)
    wait_for(lambda: not worker.is_running())
    bench.hurry()
    (state,) = bench.states()
    assert (state / "checkpoint.safetensors").exists()
    # The budget is another one now, so this is another run: it must not be disturbed by what the
    # killed one left.
    assert bench(*SLOW, "--arm", "augmented", "--budget", "20steps", "--resume").code == 0


@pytest.mark.parametrize(
    ("pair", "status", "says"),
    [
        ("toy/diverges", "diverged", "diverged"),
        ("toy/raises", "failed", "told to raise"),
        ("toy/dies-sigkill", "failed", "killed by SIGKILL"),
        ("toy/dies-sigsegv", "failed", "killed by SIGSEGV"),
        ("toy/dies-exit", "failed", "ended with code 7"),
        ("toy/dies-memory", "failed", "the memory of cpu is too small for it (MemoryError)"),
    ],
)
def test_an_arm_that_fails_leaves_the_other_alone(bench, pair, status, says):
    ran = bench("run", pair, *QUICK)
    assert ran.code == 3
    error = one_sentence(ran)
    assert f"{pair} equivariant seed 0" in error
    assert says in error
    records = by_arm(bench)
    assert records["augmented"]["status"] == "completed"
    ended = records["equivariant"]
    assert ended["status"] == status
    # The fiftieth step is the one that went wrong.
    assert ended["steps"] in (49, 50)
    assert ended["reason"] in error
    assert str(bench.folder) not in json.dumps(ended)
    assert ended["throughput"]["samples_per_second"] is None
    validated = bench("results", "validate", str(bench.results))
    assert validated.code == 0, validated.out + validated.err


def test_a_worker_that_dies_before_its_arm_is_built_leaves_a_record(bench):
    ran = bench("run", "toy/unbuilt", *QUICK)
    assert ran.code == 3
    assert "was killed by SIGKILL" in one_sentence(ran)
    assert "it is going to die" in ran.err, "what workers warn of is said"
    records = by_arm(bench)
    lost, kept = records["equivariant"], records["augmented"]
    assert kept["status"] == "completed"
    assert (lost["status"], lost["steps"], lost["clock"]["wall"]) == ("failed", 0, 0.0)
    assert "toy/unbuilt equivariant seed 0 was killed by SIGKILL" in lost["reason"]
    assert lost["model"]["parameters"] is None
    assert (lost["dataset"], lost["contest"]) == (kept["dataset"], kept["contest"])
    validated = bench("results", "validate", str(bench.results))
    assert validated.code == 0, validated.out + validated.err
    board = bench("leaderboard", "export", "--results", str(bench.results), "--format", "json")
    (row,) = [row for row in board.json[0]["rows"] if row["arm"] == "equivariant"]
    assert (row["seeds"], row["finished"], row["parameters"]) == (1, 0, None)


def test_a_model_that_breaks_the_rules_fails_alone_and_its_record_says_how(bench):
    ran = bench("run", "toy/writes", *QUICK)
    assert ran.code == 3
    assert "Writes wrote into its input 'x'" in one_sentence(ran)
    records = by_arm(bench)
    assert records["augmented"]["status"] == "completed"
    assert records["equivariant"]["status"] == "failed"
    assert "wrote into its input 'x'" in records["equivariant"]["reason"]


def test_a_clock_that_is_slowed_from_inside_is_found_by_the_one_outside(bench):
    ran = bench("run", "toy/own-clock", *QUICK, "--arm", "equivariant", "--budget", "500steps")
    assert ran.code == 3
    assert "no time of it can be believed" in one_sentence(ran)
    (record,) = bench.records()
    assert record["status"] == "failed"
    assert "its clock counted" in record["reason"]


def test_an_arm_that_hangs_is_ended_says_where_and_leaves_the_other_alone(bench, monkeypatch):
    monkeypatch.setenv("EQUIVBENCH_HANG_SECONDS", "6")
    ran = bench("run", "toy/dies-hang", *QUICK)
    assert ran.code == 3
    assert "hung: it gave no sign of life for" in one_sentence(ran)
    records = by_arm(bench)
    assert records["augmented"]["status"] == "completed"
    assert (records["equivariant"]["status"], records["equivariant"]["steps"]) == ("failed", 49)
    assert "hung" in records["equivariant"]["reason"]
    logs = [folder.joinpath("worker.log").read_text() for folder in bench.states()]
    assert any("toy_arms.py" in log and "in end" in log for log in logs)


def test_one_sigterm_ends_a_run_whose_worker_hangs(bench, monkeypatch):
    monkeypatch.setenv("EQUIVBENCH_HANG_SECONDS", "15")
    process = bench.start("run", "toy/dies-hang", *QUICK, "--arm", "equivariant")
    wait_for(lambda: bench.furthest() >= 49)
    process.send_signal(signal.SIGTERM)
    ran = bench.finish(process)
    assert ran.code == 130
    (record,) = bench.records()
    assert record["status"] == "failed"
    assert "though it was told to end" in record["reason"]


@pytest.mark.skipif(
    signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, reason="run under nohup, which is kept"
)
def test_a_terminal_that_is_gone_saves_and_resume_goes_on(bench):
    process = bench.start(*SEVERAL_SLICES, "--arm", "equivariant")
    wait_for(lambda: bench.furthest() > 20)
    process.send_signal(signal.SIGHUP)
    ran = bench.finish(process)
    assert ran.code == 130
    (record,) = bench.records()
    assert record["status"] == "interrupted"
    bench.hurry()
    assert bench(*SEVERAL_SLICES, "--arm", "equivariant", "--resume").code == 0
    (record,) = bench.records()
    assert (record["status"], record["lost_seconds"]) == ("completed", 0.0)


def test_a_record_that_cannot_be_written_costs_one_sentence_and_resume_loses_nothing(bench):
    blocked = bench.results / machine_key("cpu", 1)
    blocked.parent.mkdir()
    blocked.write_text("a file where the records' folder should be")
    command = ("run", "toy/plain", *QUICK, "--arm", "equivariant")
    ran = bench(*command)
    assert ran.code == 3
    assert f"cannot write {blocked.relative_to(bench.folder)}" in one_sentence(ran)
    blocked.unlink()
    again = bench(*command, "--resume")
    assert again.code == 0, again.err
    (record,) = bench.records()
    # Training was over and saved before the record was due: nothing is trained again.
    assert (record["status"], record["steps"], record["restarts"], record["lost_seconds"]) == (
        "completed",
        200,
        0,
        0.0,
    )


def test_a_disk_too_full_for_checkpoints_ends_with_one_sentence_and_resume_goes_on(
    bench, monkeypatch
):
    command = ("run", "toy/plain", *QUICK, "--arm", "equivariant")
    monkeypatch.setenv("TOY_ARMS_LARGEST_FILE", "8000")  # the plan is smaller, a checkpoint is not
    ran = bench(*command)
    assert ran.code == 3
    assert "cannot write" in one_sentence(ran)
    monkeypatch.delenv("TOY_ARMS_LARGEST_FILE")
    assert bench(*command, "--resume").code == 0


def test_a_broken_plug_in_is_one_warning_and_everything_else_works(bench):
    (bench.folder / "site" / "broken_arms.py").write_text(
        "raise RuntimeError('broken on purpose')\n"
    )
    bench.entry_point("broken_arms", "broken-arms")
    ran = bench("run", "toy/plain", *QUICK, "--budget", "10steps")
    assert ran.code == 0, ran.err
    assert len([line for line in ran.err.splitlines() if "broken-arms" in line]) == 1
    assert set(by_arm(bench)) == {"equivariant", "augmented"}


def test_the_arm_behind_is_extended_as_a_second_record(bench):
    ran = bench("run", "toy/plain", *QUICK, "--budget", "40steps", "--extend", "2", "--json")
    assert ran.code == 0, ran.err
    records = bench.records()
    longer = [record for record in records if record["budget"]["extends"] is not None]
    base = {record["arm"]: record for record in records if record["budget"]["extends"] is None}
    (longer,) = longer
    behind = max(base.values(), key=lambda record: record["final"]["total"])
    assert longer["arm"] == behind["arm"]
    assert (longer["budget"]["extends"], longer["budget"]["limit"], longer["steps"]) == (40, 80, 80)
    assert longer["run_id"].startswith(behind["run_id"])
    # The prolonged curve begins with the one it prolongs, whose result has become a rung.
    assert longer["trace"][: len(behind["trace"])] == behind["trace"]
    assert longer["rungs"][:-1] == [
        *behind["rungs"][:-1],
        {**behind["rungs"][-1], "test": behind["final_on_part"]},
    ]
    again = bench(
        "run", "toy/plain", *QUICK, "--budget", "40steps", "--extend", "2", "--resume", "--json"
    )
    assert [entry["reused"] for entry in again.json["records"]] == [True] * 3


def test_what_a_script_registers_from_a_module_runs_through_the_function(bench):
    script = bench.folder / "script.py"
    (bench.folder / "mine.py").write_text((bench.folder / "site" / "toy_arms.py").read_text())
    for leftover in sorted((bench.folder / "site").rglob("*"), reverse=True):
        leftover.rmdir() if leftover.is_dir() else leftover.unlink()
    script.write_text(
        "import mine\nimport equivbench as eb\n"
        "records = eb.run('toy/plain', budget='10steps', seeds=[1], device='cpu', "
        "out='results', preset='dev')\n"
        "print([(record.arm, record.seed, record.status) for record in records])\n"
    )
    done = bench.finish(bench.start_python(str(script)))
    assert done.code == 0, done.err
    assert done.out.strip() == "[('equivariant', 1, 'completed'), ('augmented', 1, 'completed')]"
    assert len(bench.records()) == 2


def test_a_dry_run_trains_nothing_and_needs_no_torch(bench):
    (bench.folder / "site" / "torch.py").write_text(
        "raise ImportError('torch must not be needed here')\n"
    )
    for leftover in (bench.folder / "site").glob("toy*/*"):
        leftover.unlink()
    ran = replace(bench, cold=True)(
        *("run", "--dry-run", "--budget", "60s", "--seeds", "0,1", "--device", "cpu"),
        *("--rungs", "2", "--extend", "3"),
    )
    assert ran.code == 0, ran.err
    assert "4 runs" in ran.out
    assert "rungs 15s 30s, the arm behind goes on to x3" in " ".join(ran.out.split())
    assert not bench.results.exists()
    assert not (bench.folder / "cache").exists()


if sys.platform == "linux":

    def test_a_results_folder_that_cannot_be_written_is_found_before_training(bench):
        ran = bench("run", "toy/slow", *QUICK, "--out", "/proc/results")
        assert ran.code == 3
        assert "/proc/results" in one_sentence(ran)
        assert not (bench.folder / "cache").exists()
