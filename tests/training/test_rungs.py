"""A rung is what a run with its budget gives, to the bit for budgets in steps, and no rung changes
anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from dev_jobs import dev_job
from hypothesis import given
from hypothesis import strategies as st
from toy_training import (
    FakeTime,
    SlowTask,
    ToyNet,
    judged_weights,
    record_at_end,
    run_and_kill,
    toy_trainer,
)

from equivbench.budget import Budget
from equivbench.records.plausibility import problems
from equivbench.records.schema import Rung
from equivbench.schedule import (
    COOLDOWN,
    annealing,
    cooldown_begins,
    is_traced,
    next_traced,
    rung_budgets,
)
from equivbench.training.assembly import build_trainer
from equivbench.training.clock import Clock
from equivbench.training.job import Job
from equivbench.training.loop import Trainer


def finished(budget: str = "40steps", **options: Any) -> Trainer:
    trainer = toy_trainer(budget, **options)
    trainer.train_slice(1e9)
    assert trainer.finished
    return trainer


def untimed(rungs: list[Rung]) -> list[Any]:
    return [(rung.budget, rung.step, rung.samples, rung.test) for rung in rungs]


@given(st.integers(1, 10**6), st.integers(0, 10**6))
def test_the_rate_is_full_until_the_cooldown_begins_and_never_zero_in_a_step(
    limit: int, step: int
) -> None:
    factor = annealing(float(step), float(limit))
    if step < cooldown_begins(limit):
        assert factor == 1.0
    elif step < limit:
        assert 0 < factor <= 1.0
        assert factor == pytest.approx((limit - step) / (COOLDOWN * limit))
    else:
        assert factor == 0.0


@given(st.integers(0, 10**7))
def test_traced_steps_are_1_2_5_times_powers_of_ten(step: int) -> None:
    found = next_traced(step)
    assert found > step
    assert is_traced(found)
    assert str(found).rstrip("0") in {"1", "2", "5"}
    assert not any(is_traced(each) for each in range(step + 1, min(found, step + 50)))


@given(st.integers(1, 10**6), st.integers(0, 12))
def test_rungs_halve_the_budget(limit: int, rungs: int) -> None:
    found = rung_budgets(Budget("steps", float(limit)), rungs)
    assert found == sorted(set(found))
    assert all(0 < each < limit and each == int(each) for each in found)
    assert len(found) == min(rungs, (limit - 1).bit_length())
    in_seconds = rung_budgets(Budget("seconds", float(limit)), rungs)
    assert in_seconds == [limit / 2**k for k in range(rungs, 0, -1)]


@pytest.mark.parametrize("unit", ["steps", "samples"])
def test_each_rung_is_what_a_run_of_its_budget_gives(unit: str) -> None:
    limit = 40 if unit == "steps" else 317
    trainer = finished(f"{limit}{unit}", rungs=3, model=dropout_net())
    assert [rung.budget for rung in trainer.facts.rungs] == [
        *(float(-(-limit // 2**k)) for k in (3, 2, 1)),
        limit,
    ]
    for rung in trainer.facts.rungs[:-1]:
        shorter = finished(f"{rung.budget:.0f}{unit}", rungs=0, model=dropout_net())
        assert (rung.step, rung.samples) == (shorter.facts.step, shorter.facts.samples)
        assert rung.test == shorter.facts.final_on_part


def dropout_net() -> ToyNet:
    torch.manual_seed(0)
    return ToyNet(width=64, dropout=0.3)


def test_rungs_change_nothing_but_the_clock() -> None:
    with_rungs, without = finished(rungs=3), finished(rungs=0)
    assert with_rungs.facts.final == without.facts.final
    assert [p.test for p in with_rungs.trace] == [p.test for p in without.trace]
    for name, tensor in without.tensors().items():
        assert torch.equal(with_rungs.tensors()[name], tensor), name
    assert with_rungs.clock.seconds()["rungs"] > 0 == without.clock.seconds()["rungs"]


# Of 40 steps the rungs of 10 and 20 begin at steps 8 and 16 and end at 10 and 20: the second time
# that a step is made is in the trunk.
@pytest.mark.parametrize("step", [8, 9, 15, 18, 19, 33, 38])
def test_a_kill_anywhere_changes_no_rung(tmp_path: Path, step: int) -> None:
    reference = finished(rungs=2)
    options: dict[str, Any] = {"budget": "40steps", "folder": tmp_path, "rungs": 2}
    run_and_kill(toy_trainer(**options), step)
    trainer = toy_trainer(**options)
    assert trainer.restore()
    assert trainer.facts.step <= step
    trainer.train_slice(1e9)
    assert untimed(trainer.facts.rungs) == untimed(reference.facts.rungs)
    for name in ("final", "final_on_part", "final_raw", "final_ema"):
        assert getattr(trainer.facts, name) == getattr(reference.facts, name), name
    assert [p.test for p in trainer.trace] == [p.test for p in reference.trace]
    assert problems(record_at_end(trainer)) == []


def test_a_stop_within_a_rung_leaves_it_to_be_measured_later(tmp_path: Path) -> None:
    reference = finished(rungs=2)
    trainer = toy_trainer("40steps", folder=tmp_path, rungs=2)
    real = trainer.step

    def stop_in_a_rung(clock: Clock, rate_factor: float = 1.0) -> None:
        real(clock, rate_factor)
        if trainer.progress().rung == 20 and trainer.facts.step == 18:
            trainer.stop()

    trainer.step = stop_in_a_rung  # type: ignore[method-assign]
    trainer.train_slice(1e9)
    assert (trainer.facts.step, len(trainer.facts.rungs)) == (16, 1)
    trainer.save()
    again = toy_trainer("40steps", folder=tmp_path, rungs=2)
    assert again.restore()
    again.train_slice(1e9)
    assert untimed(again.facts.rungs) == untimed(reference.facts.rungs)


def test_rungs_take_a_fifth_of_the_budget_at_most_and_none_of_it() -> None:
    time = FakeTime()
    task = SlowTask(time, 1 / 64, 3 / 64)
    trainer = finished("64s", rungs=5, clock=Clock(time), task=task)
    assert trainer.clock.spent == 64
    # 0.2 (1/2 + ... + 1/32) of it, each to a step.
    assert trainer.clock.seconds()["rungs"] == pytest.approx(0.2 * 62, abs=5 / 16)
    for rung in trainer.facts.rungs:
        assert rung.train_seconds == pytest.approx(rung.budget, abs=1 / 16)
        assert rung.step == pytest.approx(rung.budget * 16, abs=1)


def test_weights_before_the_last_cooldown_are_measured_raw_and_averaged() -> None:
    trainer = finished("40steps", rungs=0)
    raw, average, annealed = judged_weights(trainer)
    trunk = toy_trainer("400steps", rungs=0)
    while trunk.facts.step < 32:
        trunk.train_slice(1e-9)
    assert torch.equal(raw, trunk.arm.model.get_parameter("layers.0.weight"))
    assert torch.equal(average, trunk.average.average["layers.0.weight"])
    assert torch.equal(annealed, trainer.arm.model.get_parameter("layers.0.weight"))
    assert trainer.facts.cools_from == 32
    # Nothing of the trace is later.
    assert [point.step for point in trainer.trace] == [1, 2, 5, 10, 20]


@pytest.mark.parametrize("factors", [(1.5,), (3,), (2, 3), (1.25, 7)])
def test_an_extension_measures_no_rung_that_would_have_branched_off_before(
    tmp_path: Path, factors: tuple[float, ...]
) -> None:
    trainer = finished("40steps", folder=tmp_path, rungs=3)
    for factor in factors:
        trainer.extend(Budget("steps", 40 * factor))
        trainer.train_slice(1e9)
    assert [rung.budget for rung in trainer.facts.rungs][:4] == [5, 10, 20, 40]
    assert trainer.facts.rungs_left == []
    for rung in trainer.facts.rungs[:-1]:
        shorter = finished(f"{rung.budget:.0f}steps", rungs=0)
        assert (rung.step, rung.test) == (shorter.facts.step, shorter.facts.final_on_part)
    assert problems(record_at_end(trainer)) == []


def test_a_trial_is_measured_at_its_end_alone() -> None:
    trainer = finished("40steps", rungs=0, traced=False)
    assert len(judged_weights(trainer)) == 1
    assert judged_weights(trainer, part=True) == []
    assert trainer.facts.final is not None


@pytest.mark.parametrize(
    ("pair", "arm"),
    [
        ("forcefield/vector", "augmented"),
        ("flow/vector-head", "equivariant"),
        ("voxel/octahedral", "augmented"),
    ],
)
def test_rungs_of_every_task_are_runs_to_the_bit(tmp_path: Path, pair: str, arm: str) -> None:
    def job(budget: str, name: str, **asked: Any) -> Job:
        return dev_job(tmp_path / name, pair, arm, asked=asked, budget=budget)

    whole = job("10steps", "whole", rungs=2)
    # Killed within the branch from step 4 to 5.
    run_and_kill(build_trainer(whole), 4)
    trainer = build_trainer(msgspec.structs.replace(whole, request=whole.request.resuming()))
    trainer.train_slice(1e9)
    assert [rung.budget for rung in trainer.facts.rungs] == [3, 5, 10]
    for rung in trainer.facts.rungs[:-1]:
        shorter = build_trainer(job(f"{rung.budget:.0f}steps", f"{rung.budget:.0f}", rungs=0))
        shorter.train_slice(1e9)
        assert rung.test == shorter.facts.final_on_part
