"""On a device that runs on its own the budget is what the device did, to one reading of the clock:
through the clock, the trainer, the timed blocks and turns of both arms."""

from __future__ import annotations

import math
import statistics
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from dev_jobs import dev_job
from hypothesis import given
from hypothesis import strategies as st
from pretend_device import PretendDevice
from toy_training import Batch, FakeTime, ToyTask, toy_trainer

from equivbench.training import assembly
from equivbench.training.assembly import build_trainer
from equivbench.training.clock import ClockPart, EnergyMeter
from equivbench.training.loop import Trainer
from equivbench.training.steps import READING_SECONDS

SECONDS = st.floats(0.001, 10.0)


class QueueingTask(ToyTask):
    """A step queues ``step`` seconds of work, and its batch ``copy`` seconds."""

    name = "queueing-toy"

    def __init__(self, device: PretendDevice, step: float, copy: float, launch: float) -> None:
        self.device, self.step, self.copy, self.launch = device, step, copy, launch

    def assemble(self, batch: Batch, noise: Batch, requires: Any) -> Any:
        # Batches are made beside the steps: what that costs the host delays none of them.
        aside = threading.current_thread() is not threading.main_thread()
        self.device.queue(self.copy, "data", 0.0 if aside else self.launch)
        return super().assemble(batch, noise, requires)

    def objective(self, outputs: Batch, targets: Batch, inputs: Batch) -> torch.Tensor:
        self.device.queue(self.step, "train", self.launch)
        return super().objective(outputs, targets, inputs)


EVALUATION = 0.7
"""Seconds of an evaluation."""


def on_device(
    budget: str, step: float, copy: float = 0.0, launch: float = 0.001, **options: Any
) -> tuple[PretendDevice, Trainer]:
    device = PretendDevice(FakeTime())
    task = QueueingTask(device, step, copy, launch)

    def evaluation() -> None:
        device.queue(EVALUATION, "evaluate")

    return device, toy_trainer(budget, task=task, clock=device.clock(), spend=evaluation, **options)


@given(
    st.lists(
        st.tuples(st.sampled_from(["train", "data", "evaluate", "checkpoint"]), SECONDS, SECONDS),
        min_size=1,
        max_size=12,
    )
)
def test_a_wait_is_charged_to_the_part_that_queued_the_work(
    blocks: list[tuple[ClockPart, float, float]],
) -> None:
    device = PretendDevice(FakeTime())
    clock = device.clock()
    with clock.running():
        for part, host, queued in blocks:
            with clock.part(part, synchronize=False):
                device.time.advance(host)
                device.queue(queued, part)
            clock.synchronize()
    for part in ("train", "data", "evaluate", "checkpoint"):
        host = sum(seconds for name, seconds, _ in blocks if name == part)
        assert clock.seconds()[part] == pytest.approx(host + device.used.get(part, 0.0))
    assert clock.seconds()["other"] == pytest.approx(0.0)


def test_what_is_queued_when_the_clock_pauses_or_evaluates_belongs_to_training() -> None:
    device = PretendDevice(FakeTime())
    clock = device.clock()
    with clock.running():
        with clock.part("train", synchronize=False):
            device.queue(3.0)
        with clock.part("evaluate"):
            device.queue(5.0)
        with clock.part("train", synchronize=False):
            device.queue(2.0)
    assert {name: s for name, s in clock.seconds().items() if s} == {"train": 5.0, "evaluate": 5.0}


def test_energy_is_that_of_all_the_work_that_a_block_queued() -> None:
    device = PretendDevice(FakeTime())
    clock = device.clock()

    def joules() -> float:
        """300 W while the device works."""
        left = max(0.0, device.busy_until - device.time())
        return 300.0 * (sum(device.used.values()) - left)

    meter = EnergyMeter(joules)
    for part, seconds in (("train", 2.0), ("evaluate", 0.5)):
        with clock.running(), meter.metered(clock), clock.part(part, synchronize=False):
            device.queue(seconds, part)
        # What the other arm draws in between is not counted.
        device.queue(9.0, "the other arm")
        device.synchronize()
    assert meter.joules == pytest.approx(300.0 * 2.5)
    assert clock.wall == pytest.approx(2.5)


@pytest.mark.parametrize("step", [0.0004, 0.003, 0.1, 0.45])
@pytest.mark.parametrize("launch", [0.0001, 0.001])
def test_a_budget_in_seconds_is_device_seconds_to_one_reading(step: float, launch: float) -> None:
    # Host and device work at the same time, whichever is slower sets the pace.
    each = max(step, launch)
    budget = min(3.0, 500 * each)
    device, trainer = on_device(f"{budget}s", step, launch=launch, rungs=2)
    while not trainer.finished:
        trainer.train_slice(0.3)
        device.time.advance(5.0)  # the other arm
    seconds = trainer.clock.seconds()
    assert budget <= trainer.clock.spent + 1e-9 <= budget + each + 0.1 * READING_SECONDS
    # Each reading leaves the device idle while the next step is queued.
    assert trainer.facts.step * each == pytest.approx(trainer.clock.spent, rel=0.04, abs=each)
    assert seconds["other"] < 0.05 * trainer.clock.wall
    # Those of the two rungs are in the part that holds their steps.
    assert seconds["evaluate"] == pytest.approx(device.used["evaluate"] - 2 * EVALUATION)
    steps = 0.2 * budget * (1 / 2 + 1 / 4)
    assert seconds["rungs"] == pytest.approx(steps + 2 * EVALUATION, abs=3 * each + 0.1)


def test_the_reading_interval_follows_the_steps_and_not_the_other_way_round() -> None:
    for step, expected in ((0.002, 100), (0.05, 4), (0.3, 1)):
        device, trainer = on_device("200steps", step, rungs=0)
        trainer.train_slice(1e9)
        # A fifth of a second between two waits, and never a wait for more than that or one step.
        assert trainer.steps_until(math.inf) == pytest.approx(expected, rel=0.1)
        assert device.used["train"] == pytest.approx(201 * step)  # with the one that is undone


def test_a_timed_block_takes_what_training_takes() -> None:
    step, launch = 0.01, 0.001
    _, trainer = on_device("2s", step, launch=launch)
    trainer.train_slice(1.0)
    per_step = trainer.clock.spent / trainer.facts.step
    blocks = [trainer.time_block(0.3) for _ in range(4)]
    assert statistics.fmean(block.seconds for block in blocks) == pytest.approx(per_step, rel=0.05)
    assert trainer.clock.seconds()["other"] == pytest.approx(0.0, abs=1e-9)


def test_two_arms_in_turn_are_charged_their_own_work_only() -> None:
    time = FakeTime()
    device = PretendDevice(time)
    arms = [
        toy_trainer("2s", task=QueueingTask(device, step, 0.0, 0.0005), clock=device.clock())
        for step in (0.004, 0.02)
    ]
    while not all(arm.finished for arm in arms):
        for arm in arms:
            if not arm.finished:
                arm.train_slice(0.5)
    for arm, step in zip(arms, (0.004, 0.02), strict=True):
        assert arm.facts.step * step == pytest.approx(arm.clock.spent, rel=0.02)
        assert arm.clock.spent == pytest.approx(2.0, abs=step + READING_SECONDS)


@pytest.mark.parametrize("pair", ["forcefield/vector", "flow/vector-head", "voxel/octahedral"])
def test_both_arms_of_every_task_are_charged_what_the_device_did_for_them(
    pair: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = PretendDevice(FakeTime())
    monkeypatch.setattr(assembly, "clock_of", lambda *_: device.clock())
    seconds = {"equivariant": 0.09, "augmented": 0.05}
    arms = {}
    for arm, step in seconds.items():
        trainer = build_trainer(dev_job(tmp_path / arm, pair, arm, asked={"rungs": 1}, budget="1s"))
        task = trainer.arm.task

        def queueing(
            outputs: Batch,
            targets: Batch,
            inputs: Batch,
            step: float = step,
            objective: Any = task.objective,
            trained: torch.nn.Module = trainer.arm.model,
        ) -> torch.Tensor:
            if trained.training:
                device.queue(step, "train", launch=0.001)
            return objective(outputs, targets, inputs)  # type: ignore[no-any-return]

        monkeypatch.setattr(task, "objective", queueing)
        arms[arm] = trainer
    while not all(trainer.finished for trainer in arms.values()):
        for trainer in arms.values():
            trainer.train_slice(0.3)
    for arm, trainer in arms.items():
        assert trainer.clock.spent == pytest.approx(1.0, abs=READING_SECONDS + seconds[arm])
        assert trainer.facts.step * seconds[arm] == pytest.approx(trainer.clock.spent, rel=0.04)
        assert trainer.clock.seconds()["other"] < 0.05 * trainer.clock.wall
        timed = [trainer.time_block(0.2).seconds for _ in range(2)]
        assert timed == pytest.approx([seconds[arm]] * 2, rel=0.04)
