"""Going on after a crash: the same end to the bit, and what was lost is counted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_training import FakeTime, SlowTask, ToyNet, record_so_far, run_and_kill, toy_trainer
from warm import WarmPopen

from equivbench.budget import Budget
from equivbench.errors import FailedError
from equivbench.training.checkpoint import CURRENT, PREVIOUS, checkpoint_due, read_checkpoint
from equivbench.training.clock import PARTS, Clock
from equivbench.training.data import seed_global
from equivbench.training.heartbeat import _FORM
from equivbench.training.loop import Trainer


@pytest.fixture(params=[1, 2], ids=["1-thread", "2-threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def dropout_net() -> ToyNet:
    seed_global(0, "init")
    return ToyNet(width=512, dropout=0.3)


def untimed(trainer: Trainer) -> list[Any]:
    """What was measured, without the seconds, which differ from run to run."""
    facts = trainer.facts
    trace = [(point.step, point.samples, point.test, point.ema) for point in facts.trace]
    rungs = [(rung.step, rung.samples, rung.test) for rung in facts.rungs]
    return [trace, rungs, facts.final, facts.final_on_part, facts.final_raw, facts.final_ema]


def assert_same_end(trainer: Trainer, reference: Trainer) -> None:
    assert untimed(trainer) == untimed(reference)
    for name, tensor in reference.tensors().items():
        assert torch.equal(trainer.tensors()[name], tensor), name


def resumed(folder: Path, **options: Any) -> Trainer:
    trainer = toy_trainer(folder=folder, **options)
    assert trainer.restore()
    return trainer


def test_the_end_is_bit_identical_to_an_unbroken_run(tmp_path: Path, threads: int) -> None:
    reference = toy_trainer("30steps", model=dropout_net(), batch_size=32)
    reference.train_slice(1e9)
    options: dict[str, Any] = {"budget": "30steps", "batch_size": 32, "folder": tmp_path}
    run_and_kill(toy_trainer(model=dropout_net(), **options), 11)  # a checkpoint each 3 steps
    again = resumed(model=dropout_net(), **options)
    assert again.facts.step == 9
    run_and_kill(again, 17)
    trainer = resumed(model=dropout_net(), **options)
    assert trainer.facts.step == 15
    trainer.train_slice(1e9)
    assert trainer.finished
    assert_same_end(trainer, reference)


def test_lost_seconds_and_restarts_add_up_over_several_kills(tmp_path: Path) -> None:
    time = FakeTime()
    options: dict[str, Any] = {
        "budget": "100steps",
        "rungs": 0,
        "folder": tmp_path,
        "task": SlowTask(time, 1 / 64, 3 / 64),
    }
    run_and_kill(toy_trainer(clock=Clock(time), **options), 25)  # checkpoints at 10, 20
    second = toy_trainer(clock=Clock(time), **options)
    assert second.restore()
    assert (second.facts.step, second.facts.restarts, second.facts.lost_seconds) == (20, 1, 5 / 16)
    assert second.clock.spent == 20 / 16
    trainer = toy_trainer(clock=Clock(time), **options)  # killed again before its first step
    assert trainer.restore()
    assert (trainer.facts.restarts, trainer.facts.lost_seconds) == (2, 5 / 16)
    trainer.train_slice(3 / 16)  # and again three steps later
    trainer = toy_trainer(clock=Clock(time), **options)
    assert trainer.restore()
    assert (trainer.facts.step, trainer.facts.restarts, trainer.facts.lost_seconds) == (
        20,
        3,
        8 / 16,
    )
    trainer.train_slice(1e9)
    assert trainer.clock.spent == 100 / 16
    record = record_so_far(trainer)
    assert (record.restarts, record.lost_seconds) == (3, 0.5)


def test_a_kill_before_the_first_checkpoint_starts_again_and_counts(tmp_path: Path) -> None:
    time = FakeTime()
    options: dict[str, Any] = {
        "budget": "100steps",
        "rungs": 0,
        "folder": tmp_path,
        "task": SlowTask(time, 1 / 64, 3 / 64),
    }
    run_and_kill(toy_trainer(clock=Clock(time), **options), 4)
    trainer = toy_trainer(clock=Clock(time), **options)
    assert trainer.restore()
    assert (
        trainer.facts.step,
        trainer.facts.restarts,
        trainer.facts.lost_seconds,
        trainer.clock.spent,
    ) == (0, 1, 0.25, 0.0)


def test_a_clean_stop_loses_nothing(tmp_path: Path) -> None:
    trainer = toy_trainer("100steps", folder=tmp_path)
    trainer.train_slice(0.01)
    trainer.save()
    again = resumed(tmp_path, budget="100steps")
    assert again.facts.step == trainer.facts.step
    assert (again.facts.restarts, again.facts.lost_seconds) == (1, 0.0)
    assert again.clock.spent == trainer.clock.spent


def test_a_finished_run_is_resumed_as_finished_and_not_as_restarted(tmp_path: Path) -> None:
    trainer = toy_trainer("20steps", folder=tmp_path)
    trainer.train_slice(1e9)
    again = resumed(tmp_path, budget="20steps")
    assert again.finished
    assert again.facts.restarts == 0
    assert_same_end(again, trainer)


def test_nothing_to_resume_starts_fresh_and_clear_forgets(tmp_path: Path) -> None:
    trainer = toy_trainer(folder=tmp_path / "absent")
    assert not trainer.restore()
    trainer.train_slice(0.01)
    trainer.save()
    fresh = toy_trainer(folder=tmp_path / "absent")
    fresh.clear()
    assert not fresh.restore()


def test_another_runs_checkpoint_is_refused_with_what_differs(tmp_path: Path) -> None:
    toy_trainer("20steps", folder=tmp_path).train_slice(1e9)
    with pytest.raises(FailedError, match=r"another run \(it differs in seed\)"):
        toy_trainer("20steps", folder=tmp_path, seed=1).restore()
    with pytest.raises(FailedError, match="budget"):
        toy_trainer("30steps", folder=tmp_path).restore()


def test_an_extended_run_is_resumed_with_its_extension(tmp_path: Path) -> None:
    trainer = toy_trainer("20steps", folder=tmp_path)
    trainer.train_slice(1e9)
    trainer.extend(Budget.parse("40steps"))
    trainer.train_slice(0.0)
    trainer.save()
    again = resumed(tmp_path, budget="20steps")
    assert again.budget.text == "40steps"
    again.train_slice(1e9)
    trainer.train_slice(1e9)
    assert_same_end(again, trainer)


def test_checkpoints_cost_at_most_two_percent() -> None:
    budget = Budget("seconds", 3600.0)
    assert not checkpoint_due(budget, 9.9, 9.9, 0.01)
    assert checkpoint_due(budget, 10.0, 10.0, 0.01)
    assert not checkpoint_due(budget, 49.0, 49.0, 1.0)
    assert checkpoint_due(budget, 50.0, 50.0, 1.0)
    assert checkpoint_due(Budget("steps", 95.0), 10.0, 0.1, 5.0)
    assert not checkpoint_due(Budget("steps", 95.0), 9.0, 0.1, 0.0)


@pytest.fixture
def two_checkpoints(tmp_path: Path) -> tuple[Path, list[int]]:
    trainer = toy_trainer("100steps", folder=tmp_path)
    for _ in range(2):
        trainer.train_slice(0.005)
        trainer.save()
    steps = [read_checkpoint(tmp_path / name).facts.step for name in (PREVIOUS, CURRENT)]
    assert steps[0] < steps[1]
    return tmp_path, steps


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 0x10
    path.write_bytes(data)


def foreign(path: Path) -> None:
    path.write_bytes(b"not a checkpoint at all, but long enough to be read as one")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip, foreign, empty, Path.unlink])
def test_a_damaged_checkpoint_falls_back_to_the_previous_one(
    two_checkpoints: tuple[Path, list[int]], damage: Callable[[Path], None]
) -> None:
    folder, (previous, _) = two_checkpoints
    damage(folder / CURRENT)
    trainer = resumed(folder, budget="100steps")
    assert trainer.facts.step == previous
    assert trainer.facts.lost_seconds > 0
    if damage is not Path.unlink:
        assert len(trainer.notes) == 1
        assert f"went back to the previous checkpoint, at step {previous}" in trainer.notes[0]


@pytest.mark.parametrize("damage", [cut, flip, foreign, empty])
def test_no_readable_checkpoint_is_one_sentence(
    two_checkpoints: tuple[Path, list[int]], damage: Callable[[Path], None]
) -> None:
    folder, _ = two_checkpoints
    damage(folder / CURRENT)
    damage(folder / PREVIOUS)
    with pytest.raises(FailedError, match="start this run again") as caught:
        resumed(folder, budget="100steps")
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_sentence_and_leaves_the_old_checkpoint(
    two_checkpoints: tuple[Path, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, (_, current) = two_checkpoints
    trainer = resumed(folder, budget="100steps")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    trainer.train_slice(0.001)
    with pytest.raises(FailedError, match="No space left on device"):
        trainer.save()
    monkeypatch.undo()
    assert resumed(folder, budget="100steps").facts.step == current
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [CURRENT, PREVIOUS, "heartbeat"]
    )


def test_no_pickle_is_in_a_checkpoint(two_checkpoints: tuple[Path, list[int]]) -> None:
    folder, _ = two_checkpoints
    # A pickle of protocol 2 and above starts with byte 0x80, a zip of torch.save with PK;
    # safetensors with its header's length.
    header = int.from_bytes((folder / CURRENT).read_bytes()[:8], "little")
    assert 0 < header < (folder / CURRENT).stat().st_size


SCRIPT = """
import sys, time, torch, pathlib
torch.set_num_threads(int(sys.argv[2]))
from toy_training import ToySplit, toy_trainer

collate, calls = ToySplit.collate, []

def collate_until_killed(split, indices):
    calls.append(1)
    while len(calls) > 250:
        time.sleep(1)
    return collate(split, indices)

ToySplit.collate = collate_until_killed
trainer = toy_trainer("1000steps", folder=pathlib.Path(sys.argv[1]))
trainer.restore()
print("go", flush=True)
trainer.train_slice(1e9)
"""


def spent_since_checkpoint(folder: Path) -> float:
    """Seconds of training that the heartbeat of a dead run holds and its checkpoint does not: 0 if
    it died right after saving."""
    clock = dict(
        zip(PARTS, _FORM.unpack_from((folder / "heartbeat").read_bytes())[4:], strict=True)
    )
    saved = read_checkpoint(folder / CURRENT).facts.clock
    return max(0.0, float(sum(clock[part] - saved[part] for part in ("train", "data", "rungs"))))


@pytest.mark.slow
def test_kill_minus_nine_in_the_middle(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    reference = toy_trainer("1000steps")
    reference.train_slice(1e9)
    lost = 0.0
    for number in range(2):
        process = WarmPopen(
            [sys.executable, "-c", SCRIPT, str(tmp_path), str(torch.get_num_threads())],
            env=env,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        while (
            not (tmp_path / CURRENT).exists()
            or read_checkpoint(tmp_path / CURRENT).facts.step <= 100 * number
        ):
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        lost += spent_since_checkpoint(tmp_path)
    trainer = resumed(tmp_path, budget="1000steps")
    assert trainer.facts.restarts == 2
    assert trainer.facts.step % 100 == 0
    # Sums of the same float64 numbers in another order.
    assert trainer.facts.lost_seconds == pytest.approx(lost, abs=1e-9)
    trainer.train_slice(1e9)
    assert_same_end(trainer, reference)
