"""An arm on several devices: resumed to the bit and extended, a clock of device seconds, a record
that says so. The ranks are threads here; as processes, and for every task, they are tested in
``tests/execution/test_devices_per_arm.py``."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import torch
from dev_jobs import dev_job
from thread_ranks import led
from toy_training import FakeTime, run_and_kill

from equivbench.budget import Budget
from equivbench.records.consistency import CONSISTENCY
from equivbench.records.rules import broken_rules
from equivbench.records.schema import RunRecord
from equivbench.training import clock
from equivbench.training.clock import clock_of
from equivbench.training.job import Job, Place
from equivbench.training.record import make_record


def resumed(job: Job) -> Job:
    return msgspec.structs.replace(job, request=job.request.resuming())


@pytest.mark.slow
def test_a_killed_run_goes_on_as_an_unbroken_one_to_the_bit(tmp_path: Path) -> None:
    unbroken, killed = (dev_job(tmp_path / name) for name in ("unbroken", "killed"))
    with led(unbroken) as whole:
        whole.train_slice(1e9)
    with led(killed) as trainer:
        run_and_kill(trainer, 7)
    with led(resumed(killed)) as trainer:
        assert trainer.facts.step == 7
        trainer.train_slice(1e9)
        assert trainer.facts.final == whole.facts.final
        for name, tensor in whole.tensors().items():
            assert torch.equal(trainer.tensors()[name], tensor), name
        # Back to where the last cooldown began, on every rank.
        trainer.extend(Budget.parse("20steps"))
        trainer.train_slice(1e9)
        assert trainer.facts.step == 20
        assert [rung.budget for rung in trainer.facts.rungs][-1] == 20


@pytest.mark.slow
def test_the_record_says_how_many_devices_there_were_and_how_well_they_were_used(
    tmp_path: Path,
) -> None:
    job = dev_job(tmp_path, replicas=(Place("cpu", "cpu:1"),))
    with led(job) as trainer:
        trainer.train_slice(1e9)
        before = {name: tensor.clone() for name, tensor in trainer.tensors().items()}
        timed = [trainer.time_block(0.0), trainer.time_block(0.0)]
        for name, tensor in trainer.tensors().items():
            assert torch.equal(tensor, before[name]), name
        trainer.compare_ranks()
        record = make_record(job, trainer, timed, None, inference_seconds=0.0)
    assert (record.status, record.devices_per_arm) == ("completed", 2)
    assert record.environment.machine_key.endswith("t-x2")
    assert all(block.alone is not None and block.alone > 0 for block in timed)
    alone = sum(block.alone or 0.0 for block in timed)
    efficiency = alone / sum(block.seconds for block in timed)
    assert record.throughput.scaling_efficiency == pytest.approx(efficiency)
    assert record.out_of_distribution
    assert list(broken_rules(record, CONSISTENCY)) == []
    assert msgspec.json.decode(msgspec.json.encode(record), type=RunRecord) == record


def test_a_run_that_ends_before_it_is_timed_says_why_it_has_no_efficiency(tmp_path: Path) -> None:
    job = dev_job(tmp_path, replicas=(Place("cpu", "cpu:1"),))
    with led(job) as trainer:
        record = make_record(job, trainer, [], None, interrupted=True)
    assert record.throughput.scaling_efficiency is None
    assert "timed" in record.reasons["throughput.scaling_efficiency"]


def test_the_clock_of_several_devices_counts_the_seconds_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    time, stalls = FakeTime(), iter([0.0, 0.5, 0.0])
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=time))
    several = clock_of(torch.device("cpu"), lambda: next(stalls, 0.0), 3)
    with several.running():
        with several.part("train"):
            time.advance(2.0)
        with several.part("data"):
            time.advance(1.0)
    assert several.seconds()["stalled"] == pytest.approx(3 * 0.5)
    assert several.spent == pytest.approx(3 * (3.0 - 0.5))
    assert several.wall == pytest.approx(3 * 3.0)


def test_progress_is_told_in_seconds_of_the_day(tmp_path: Path) -> None:
    with led(dev_job(tmp_path, budget="1000s")) as trainer:
        trainer.clock.charge("train", 100.0)
        told = trainer.progress()
    assert (told.spent, told.limit) == (trainer.clock.spent, 1000.0)
    assert told.seconds_left == pytest.approx((1000.0 - told.spent) / 2)
    assert told.wall == pytest.approx(trainer.clock.wall / 2)
