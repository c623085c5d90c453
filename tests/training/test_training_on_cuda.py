"""Training on a GPU: every arm, a run that is gone on with, a compiled one, and clock, energy and
memory against the device's own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from dev_jobs import dev_job
from on_device import DEVICE, IS_GPU, needs_device, needs_gpu

from equivbench.records.schema import NotMeasured
from equivbench.registry import PAIRS
from equivbench.training.assembly import build_trainer
from equivbench.training.clock import clock_of
from equivbench.training.compilation import BACKEND
from equivbench.training.job import Job
from equivbench.training.loop import Trainer
from equivbench.training.record import make_record

pytestmark = [pytest.mark.cuda]
ARMS = [(name, arm.name) for name, each in PAIRS.entries().items() for arm in each.value.arms]
STEPS = 12
"""After so many every arm predicts something: before that there is no symmetry to verify."""


def trainer_of(
    folder: Path, pair: str, arm: str, budget: str = "3steps", resume: bool = False, **change: Any
) -> tuple[Trainer, Job]:
    asked = {"resume": resume, "rungs": 0}
    change = {"budget": budget, "device": str(DEVICE), **change}
    job = dev_job(folder, pair, arm, asked=asked, **change)
    return build_trainer(job), job


def work(product: torch.Tensor, calls: int) -> torch.Tensor:
    for _ in range(calls):
        product = product @ product
        product = product / product.norm()
    return product


@needs_gpu
def test_the_clock_counts_what_the_devices_own_events_do() -> None:
    clock = clock_of(DEVICE)
    product = torch.randn(2048, 2048, device=DEVICE)
    work(product, 20)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    with clock.running():
        with clock.part("train", synchronize=False):
            begin.record()  # type: ignore[no-untyped-call]
            product = work(product, 400)
            end.record()  # type: ignore[no-untyped-call]
        with clock.part("evaluate"):
            time.sleep(0.05)
    seconds = begin.elapsed_time(end) / 1e3  # type: ignore[no-untyped-call]
    assert clock.seconds()["train"] == pytest.approx(seconds, rel=0.05, abs=2e-3)
    assert clock.seconds()["other"] < 2e-3


@needs_gpu
@pytest.mark.parametrize("arm", ["equivariant", "augmented"])
def test_a_budget_in_seconds_is_what_the_device_was_busy(tmp_path: Path, arm: str) -> None:
    trainer, _ = trainer_of(tmp_path, "forcefield/vector", arm, "1s")
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    with trainer.running():
        trainer.prepare()
        before, aside = trainer.clock.spent, trainer.clock.seconds()["other"]
        begin.record()  # type: ignore[no-untyped-call]
        while trainer.clock.spent - before < 1.0:
            count = trainer.steps_until(1e9)
            trainer.step_seconds = trainer.advance(trainer.clock, trainer.clock.spent, 1e9, count)
        end.record()  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    seconds = begin.elapsed_time(end) / 1e3  # type: ignore[no-untyped-call]
    spent = trainer.clock.spent - before
    assert spent == pytest.approx(seconds, rel=0.05)
    assert trainer.clock.seconds()["other"] - aside < 0.05 * spent


@needs_gpu
def test_energy_and_memory_are_the_devices(tmp_path: Path) -> None:
    trainer, _ = trainer_of(tmp_path, "forcefield/vector", "augmented", "1s")
    trainer.train_slice(1e9)
    peak = trainer.memory.peak
    assert isinstance(peak, int)
    assert 0 < peak <= torch.cuda.get_device_properties(DEVICE).total_memory
    joules = trainer.energy.joules
    if isinstance(joules, NotMeasured):
        pytest.skip(joules.reason)
    assert 1 < joules / trainer.clock.wall < 2000


@needs_gpu
def test_too_little_memory_is_told_apart(tmp_path: Path) -> None:
    from equivbench.training.memory import is_out_of_memory

    trainer, _ = trainer_of(tmp_path, "forcefield/vector", "augmented")
    objective = trainer.arm.task.objective

    def hungry(*arguments: Any) -> torch.Tensor:
        torch.empty(10**13, dtype=torch.uint8, device=DEVICE)
        return objective(*arguments)

    trainer.arm.task.objective = hungry  # type: ignore[assignment,method-assign]
    with pytest.raises(RuntimeError) as raised:
        trainer.train_slice(1e9)
    assert is_out_of_memory(raised.value)


@needs_device
@pytest.mark.parametrize(("pair", "arm"), ARMS)
def test_every_arm_trains_and_is_measured(tmp_path: Path, pair: str, arm: str) -> None:
    trainer, job = trainer_of(tmp_path, pair, arm, f"{STEPS}steps")
    trainer.train_slice(1e9)
    assert trainer.diverged is None
    record = make_record(job, trainer, [], None, inference_seconds=0.0)
    assert record.status == "completed"
    assert record.final is not None
    assert record.final.total is not None
    assert record.steps == STEPS
    placed = {each.device.type for each in trainer.arm.model.parameters()}
    assert placed == {DEVICE.type}
    declared = PAIRS.get(pair).arm(arm)
    if record.model.symmetry != "none" and declared.wrapper is None:
        assert record.model.symmetry_verified, record.model.symmetry_reason
    assert record.memory.peak_bytes is not None
    assert record.memory.peak_bytes > 8 * (record.model.parameters or 0)


@needs_device
@pytest.mark.parametrize("pair", ["forcefield/vector", "flow/vector-head", "voxel/octahedral"])
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, pair: str) -> None:
    whole, _ = trainer_of(tmp_path / "whole", pair, "augmented", "8steps")
    whole.train_slice(1e9)
    broken, _ = trainer_of(tmp_path / "broken", pair, "augmented", "8steps")
    broken.train_slice(0.0)
    while broken.facts.step < 4:
        broken.advance(broken.clock, broken.clock.spent, broken.budget.limit, 1)
    broken.save()
    again, _ = trainer_of(tmp_path / "broken", pair, "augmented", "8steps", resume=True)
    assert again.facts.step == 4
    again.train_slice(1e9)
    assert again.facts.step == 8
    # Sums by atomics have no order on a GPU, and eight steps of AdamW amplify their rounding.
    allowed = 1e-3 if IS_GPU else 0.0
    for (name, one), other in zip(
        whole.arm.model.named_parameters(), again.arm.model.parameters(), strict=True
    ):
        difference = float((one - other).detach().norm())
        assert difference <= allowed * float(one.detach().norm()) + allowed, name


@needs_device
def test_dropout_of_a_step_is_a_function_of_seed_and_step(tmp_path: Path) -> None:
    def drawn(step: int) -> torch.Tensor:
        trainer, _ = trainer_of(tmp_path, "forcefield/vector", "augmented")
        seen: list[torch.Tensor] = []
        objective = trainer.arm.task.objective

        def watched(*arguments: Any) -> torch.Tensor:
            seen.append(torch.rand(8, device=DEVICE))
            return objective(*arguments)

        trainer.arm.task.objective = watched  # type: ignore[assignment,method-assign]
        for _ in range(step):
            trainer.step(trainer.clock)
        return seen[-1].cpu()

    assert torch.equal(drawn(2), drawn(2))
    assert not torch.equal(drawn(1), drawn(2))


@needs_device
@pytest.mark.parametrize("arm", ["equivariant", "augmented"])
def test_a_compiled_arm_has_the_gradients_of_eager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arm: str
) -> None:
    trainer, _ = trainer_of(
        tmp_path, "forcefield/vector", arm, recipe={"compile": True, "precision": "tf32"}
    )
    trainer.train_slice(1e9)  # raises where the gradients differ
    assert trainer.compiled == BACKEND
    assert trainer.clock.seconds()["compile"] > 0
