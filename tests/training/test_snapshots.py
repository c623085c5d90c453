"""Weights kept from along a run: those that were judged, one for each evaluation, whatever happens
to the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toy_training import FakeTime, SlowTask, judged_weights, run_and_kill, toy_trainer

from equivbench.errors import FailedError
from equivbench.training.checkpoint import (
    CURRENT,
    SNAPSHOTS,
    read_checkpoint,
    snapshots_in,
    step_of,
)
from equivbench.training.clock import Clock


def kept(folder: Path) -> list[int]:
    return [step_of(path) for path in snapshots_in(folder)]


def test_each_evaluation_leaves_the_weights_that_it_judged_and_the_trace_up_to_it(
    tmp_path: Path,
) -> None:
    trainer = toy_trainer("40steps", folder=tmp_path, snapshots=True, rungs=0)
    trainer.train_slice(1e9)
    steps = [point.step for point in trainer.trace]
    assert kept(tmp_path) == steps
    first = "layers.0.weight"
    for count, path in enumerate(snapshots_in(tmp_path), 1):
        snapshot = read_checkpoint(path)
        assert snapshot.facts.trace == trainer.trace[:count]
        raw, average = judged_weights(trainer, part=True)[2 * (count - 1) : 2 * count]
        assert torch.equal(snapshot.weights("model")[first], raw)
        assert torch.equal(snapshot.weights("ema")[first], average)
        assert not any(name.startswith("optimizer") for name in snapshot.tensors)


def test_without_being_asked_a_run_keeps_none(tmp_path: Path) -> None:
    toy_trainer("40steps", folder=tmp_path).train_slice(1e9)
    assert kept(tmp_path) == []


def test_a_killed_run_ends_with_the_snapshots_of_an_unbroken_one(tmp_path: Path) -> None:
    unbroken = toy_trainer("40steps", folder=tmp_path / "unbroken", snapshots=True)
    unbroken.train_slice(1e9)
    options: dict[str, Any] = {
        "budget": "40steps",
        "folder": tmp_path / "killed",
        "snapshots": True,
    }
    run_and_kill(toy_trainer(**options), 25)
    again = toy_trainer(**options)
    assert again.restore()
    again.train_slice(1e9)
    assert kept(tmp_path / "killed") == kept(tmp_path / "unbroken")
    for mine, other in zip(
        *(snapshots_in(tmp_path / each) for each in ("killed", "unbroken")),
        strict=True,
    ):
        weights, expected = read_checkpoint(mine).tensors, read_checkpoint(other).tensors
        assert weights.keys() == expected.keys()
        for name, tensor in weights.items():
            assert torch.equal(tensor, expected[name]), name


def test_snapshots_of_lost_work_do_not_stay_beside_those_of_the_way_the_run_took(
    tmp_path: Path,
) -> None:
    time = FakeTime()
    slow, fast = SlowTask(time, 1 / 64, 3 / 64), SlowTask(time, 1 / 64, 1 / 64)
    options: dict[str, Any] = {
        "budget": "4s",
        "folder": tmp_path,
        "snapshots": True,
        "rungs": 0,
    }
    killed = toy_trainer(clock=Clock(time), task=slow, **options)
    killed.train_slice(1.0)
    killed.save()
    saved_at = killed.facts.step
    run_and_kill(killed, 60)
    before = kept(tmp_path)
    assert before[-1] > saved_at
    # Checkpoints after that one are lost with the machine.
    again = toy_trainer(clock=Clock(time), task=fast, **options)
    assert again.restore()
    assert kept(tmp_path) == [step for step in before if step <= again.facts.step]
    again.train_slice(1e9)
    assert kept(tmp_path) == [point.step for point in again.trace]


def test_a_run_that_starts_again_from_nothing_forgets_them(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "budget": "400steps",
        "folder": tmp_path,
        "snapshots": True,
    }
    killed = toy_trainer(**options)
    run_and_kill(killed, 20)  # before the first checkpoint
    assert kept(tmp_path)
    (tmp_path / CURRENT).unlink(missing_ok=True)
    assert toy_trainer(**options).restore()
    assert kept(tmp_path) == []


def test_clearing_forgets_them(tmp_path: Path) -> None:
    trainer = toy_trainer("40steps", folder=tmp_path, snapshots=True)
    trainer.train_slice(1e9)
    trainer.clear()
    assert kept(tmp_path) == []


def test_a_disk_that_refuses_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / SNAPSHOTS).write_text("in the way")
    trainer = toy_trainer("40steps", folder=tmp_path, snapshots=True)
    with pytest.raises(FailedError, match="cannot write"):
        trainer.train_slice(1e9)
