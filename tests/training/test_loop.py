"""The loop: what is charged to the budget, what is evaluated when and with which weights, and when
it stops."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from toy_training import (
    Batch,
    FakeTime,
    SlowTask,
    ToyEvaluator,
    ToyNet,
    ToySplit,
    ToyTask,
    record_at_end,
    record_so_far,
    total,
    toy_trainer,
)

from equivbench.budget import Budget
from equivbench.errors import UsageError
from equivbench.training.clock import Clock
from equivbench.training.job import Progress
from equivbench.training.loop import StepTimes, Trainer

DATA, TRAIN, EVALUATE = 1 / 64, 3 / 64, 5.0  # dyadic, so that sums are exact
STEP = DATA + TRAIN


def on_fake_time(budget: str, **options: Any) -> tuple[FakeTime, Trainer]:
    time = FakeTime()
    task = SlowTask(time, DATA, TRAIN)
    return time, toy_trainer(
        budget, task=task, clock=Clock(time), spend=lambda: time.advance(EVALUATE), **options
    )


def finish(trainer: Trainer, seconds: float = 1e9, away: Callable[[], None] = lambda: None) -> None:
    while not trainer.finished:
        trainer.train_slice(seconds)
        away()


def test_seconds_are_train_plus_data_and_nothing_else() -> None:
    time, trainer = on_fake_time("2s", rungs=0)
    started = time()
    waited = 0.0

    def other_arm() -> None:
        nonlocal waited
        waited += 7.0
        time.advance(7.0)

    finish(trainer, seconds=0.5, away=other_arm)
    clock = trainer.clock.seconds()
    assert trainer.facts.step == math.ceil(2 / STEP)
    assert clock == {
        **dict.fromkeys(clock, 0.0),
        "data": trainer.facts.step * DATA,
        "train": trainer.facts.step * TRAIN,
        # Two kinds of weights at steps 1, 2, 5, 10, 20 and where the cooldown begins, the result
        # on the test set and the part of it.
        "evaluate": (2 * 6 + 2) * EVALUATE,
        "compile": STEP,  # the first step, undone, in which libraries compile
    }
    assert trainer.clock.wall == time() - started - waited
    assert [point.step for point in trainer.trace] == [1, 2, 5, 10, 20]


@pytest.mark.parametrize(
    "budget", ["1.97s", "33steps", "100samples", "0.01s", "1steps", "1samples"]
)
def test_the_last_evaluation_is_at_the_end_and_overshoot_is_at_most_one_step(budget: str) -> None:
    _, trainer = on_fake_time(budget)
    finish(trainer)
    step = {"seconds": STEP, "steps": 1, "samples": 8}[trainer.budget.kind]
    assert 0 <= trainer.spent - trainer.budget.limit < step
    assert trainer.facts.rungs[-1].step == trainer.facts.step
    assert trainer.facts.rungs[-1].train_seconds == trainer.clock.spent
    assert trainer.facts.final == trainer.facts.rungs[-1].test
    assert trainer.facts.final is not None
    assert trainer.facts.final.floor is not None


def test_a_slice_ends_after_its_seconds() -> None:
    _, trainer = on_fake_time("100s")
    trainer.train_slice(0.5)
    assert trainer.clock.spent == 0.5
    trainer.train_slice(0.5)
    assert trainer.clock.spent == 1.0


def test_stop_ends_the_slice_after_the_step_at_hand() -> None:
    _, trainer = on_fake_time("100s")
    trainer.train_slice(50.0, report=lambda progress: trainer.stop())
    step = trainer.facts.step
    assert 0 < step < 20
    trainer.train_slice(STEP)
    assert trainer.facts.step == step + 1


def test_arms_with_other_batch_sizes_see_the_same_samples_in_the_same_order() -> None:
    orders = []
    for batch_size in (4, 10):
        trainer = toy_trainer("40samples", batch_size=batch_size, rungs=0)
        finish(trainer)
        split = trainer.arm.split
        assert isinstance(split, ToySplit)
        # The first batch is that of the step that is undone.
        orders.append([sample for batch in split.collated[1:] for sample in batch])
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == sorted(2 * list(range(20)))


def test_augmentation_rotates_inputs_and_targets_alike_and_differs_between_steps() -> None:
    trainer = toy_trainer(augmentation="haar")
    plain = toy_trainer(augmentation="none")
    (inputs, targets), (stored, stored_targets) = trainer.batches.at(0, 8), plain.batches.at(0, 8)
    assert not torch.allclose(inputs["a"], stored["a"], atol=0.1)
    # float32 rounding of vectors of length about 2, three products each
    torch.testing.assert_close(
        torch.linalg.cross(inputs["a"], inputs["b"]), targets["y"], atol=2e-6, rtol=1e-5
    )
    torch.testing.assert_close(
        inputs["a"].norm(dim=1), stored["a"].norm(dim=1), atol=1e-6, rtol=1e-6
    )
    assert not torch.equal(trainer.batches.at(20, 8)[0]["a"], inputs["a"])
    assert torch.equal(trainer.batches.at(0, 8)[0]["a"], inputs["a"])
    assert torch.equal(
        targets["y"].norm(dim=1).argsort(), stored_targets["y"].norm(dim=1).argsort()
    )


def test_a_fraction_of_the_samples_is_rotated_each_by_the_rotation_it_would_have_had() -> None:
    stored, every, half = (
        toy_trainer(augmentation=kind, augmentation_fraction=part).batches.at(0, 400)[0]["a"]
        for kind, part in (("none", 1.0), ("haar", 1.0), ("haar", 0.5))
    )
    as_stored, as_rotated = (half == stored).all(1), (half == every).all(1)
    assert bool((as_stored ^ as_rotated).all())
    # Five standard deviations of a binomial count of 400 at one half.
    assert abs(int(as_rotated.sum()) - 200) < 50
    none = toy_trainer(augmentation="haar", augmentation_fraction=0.0).batches.at(0, 400)[0]["a"]
    assert torch.equal(none, stored)


def test_training_learns() -> None:
    trainer = toy_trainer("300steps", model=ToyNet(width=64))
    finish(trainer)
    totals = [total(rung) for rung in trainer.facts.rungs[:-1]]
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] < 0.5 * total(trainer.trace[0])


class ExplodingTask(ToyTask):
    """The toy task whose objective is multiplied by ``factor`` from step ``call`` on; one call
    comes before the steps, in ``prepare``."""

    name = "exploding-toy"

    def __init__(self, call: int, factor: float) -> None:
        self.calls, self.call, self.factor = -1, call, factor

    def objective(self, outputs: Batch, targets: Batch, inputs: Batch) -> torch.Tensor:
        self.calls += 1
        return super().objective(outputs, targets, inputs) * (
            self.factor if self.calls >= self.call else 1.0
        )


@pytest.mark.parametrize(
    ("factor", "word"),
    [(float("nan"), "loss is nan"), (float("inf"), "loss is inf"), (1e37, "gradient norm is inf")],
)
def test_divergence_ends_the_arm_and_keeps_what_was_seen(factor: float, word: str) -> None:
    trainer = toy_trainer("40steps", rungs=0, task=ExplodingTask(12, factor))
    finish(trainer)
    assert trainer.facts.step == 12
    assert trainer.diverged is not None
    assert word in trainer.diverged
    assert "step 12" in trainer.diverged
    assert [point.step for point in trainer.trace] == [1, 2, 5, 10]
    record = record_at_end(trainer)
    assert (record.status, record.reason) == ("diverged", trainer.diverged)
    assert len(record.trace) == 4
    assert record.final is None
    assert record.final_raw is None
    assert record.reasons["final_raw"] == "the arm diverged"


def test_an_evaluation_that_is_not_finite_is_divergence_and_never_a_number() -> None:
    trainer = toy_trainer("40steps", rungs=0, traced=False)
    assert isinstance(trainer.arm.evaluator, ToyEvaluator)
    trainer.arm.evaluator.split.y[3] = float("nan")
    finish(trainer)
    assert trainer.diverged is not None
    assert (
        "total is nan after 40 steps" in trainer.diverged
        or "objective is nan after 40 steps" in trainer.diverged
    )
    assert trainer.facts.rungs == []


def test_timing_steps_is_off_the_budget_and_leaves_no_trace() -> None:
    _, trainer = on_fake_time("40steps")
    trainer.train_slice(10 * STEP)
    before = {name: tensor.clone() for name, tensor in trainer.tensors().items()}
    progress, spent = trainer.progress(), trainer.clock.spent
    block = trainer.time_block(1.0)
    assert block == StepTimes(STEP, [STEP] * 16)
    assert trainer.clock.spent == spent
    assert trainer.clock.seconds()["timing"] == 16 * STEP
    # The seconds of the timing are on the clock, and nothing else has moved.
    assert trainer.progress() == msgspec.structs.replace(progress, wall=progress.wall + 16 * STEP)
    for name, tensor in trainer.tensors().items():
        assert torch.equal(tensor, before[name]), name
    finish(trainer)
    undisturbed = toy_trainer("40steps")
    finish(undisturbed)
    for name, tensor in trainer.tensors().items():
        assert torch.equal(tensor, undisturbed.tensors()[name]), name


def test_timing_before_the_first_step_works_too() -> None:
    _, trainer = on_fake_time("40steps")
    assert trainer.time_block(0.0) == StepTimes(STEP, [STEP])
    assert trainer.facts.step == 0


def test_an_extension_goes_on_as_if_the_budget_had_been_longer(tmp_path: Path) -> None:
    trainer = toy_trainer("20steps", folder=tmp_path)
    finish(trainer)
    own = trainer.facts.final_on_part
    trainer.extend(Budget.parse("80steps"))
    assert not trainer.finished
    # Where the last cooldown began: it has become a rung.
    assert trainer.facts.step == 16
    assert [(rung.budget, rung.test) for rung in trainer.facts.rungs][-1] == (20, own)
    finish(trainer)
    assert record_so_far(trainer).budget.extends == 20
    longer = toy_trainer("80steps", rungs=4)
    finish(longer)
    assert [(rung.budget, rung.test) for rung in trainer.facts.rungs] == [
        (rung.budget, rung.test) for rung in longer.facts.rungs
    ]
    assert [point.test for point in trainer.trace] == [point.test for point in longer.trace]
    assert trainer.facts.final == longer.facts.final
    assert trainer.facts.final_raw == longer.facts.final_raw
    with pytest.raises(UsageError, match="80steps cannot be extended to 50steps"):
        trainer.extend(Budget.parse("50steps"))
    with pytest.raises(UsageError):
        trainer.extend(Budget.parse("100s"))


def test_the_seconds_of_a_cooldown_that_became_a_rung_are_no_part_of_the_longer_budget(
    tmp_path: Path,
) -> None:
    _, trainer = on_fake_time("2s", folder=tmp_path, rungs=0)
    finish(trainer)
    trainer.extend(Budget.parse("4s"))
    assert trainer.clock.spent == pytest.approx(1.6, abs=STEP)
    assert trainer.clock.seconds()["rungs"] == 2 - trainer.clock.spent
    finish(trainer)
    assert trainer.clock.spent == 4.0


def test_an_extension_before_the_cooldown_just_goes_on() -> None:
    trainer = toy_trainer("20steps", rungs=0)
    while trainer.facts.step < 8:
        trainer.train_slice(1e-9)
    trainer.extend(Budget.parse("40steps"))
    finish(trainer)
    # That of the shorter run is a rung of the longer.
    assert [rung.budget for rung in trainer.facts.rungs] == [20, 40]


def test_progress_is_plain_data_and_reaches_the_limit() -> None:
    seen: list[Progress] = []
    _, trainer = on_fake_time("2s")
    trainer.train_slice(1e9, report=seen.append)
    assert [progress.finished for progress in seen] == [False] * (len(seen) - 1) + [True]
    last = seen[-1]
    assert last.spent == 2.0
    assert last.seconds_left == 0.0
    assert last.samples_per_second == 8 / STEP
    assert trainer.facts.final is not None
    assert last.total == trainer.facts.final.total
    assert {progress.rung for progress in seen} == {None}
    assert seen[0].seconds_left == pytest.approx(2.0 - seen[0].spent)


def test_the_record_gives_a_reason_for_every_null() -> None:
    trainer = toy_trainer("10steps")
    finish(trainer)
    record = record_at_end(trainer)
    assert record.recipe.compile is None
    assert record.clock.wall == pytest.approx(sum(trainer.clock.seconds().values()), rel=1e-12)
    nulls = {
        "recipe.compile",
        "energy_joules",
        "flops_per_sample",
        "matching.hardware",
        "model.symmetry_verified",
    }
    assert nulls <= record.reasons.keys()
    assert record.epochs == 10 * 8 / 20
    assert record.memory.peak_bytes is not None
    assert record.memory.peak_bytes > 1e7
    assert record.inference.samples_per_second is not None
    assert set(record.inference.twirl) == {"2", "4", "8"}
    assert record.final_on_part is not None
    assert record.final_on_part.groups is not None
    assert len(record.final_on_part.groups.total) == 8
    assert set(record.out_of_distribution) == {"further"}
