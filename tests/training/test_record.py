"""What a run reports is a valid record, however it ended."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toy_training import JOB, Batch, ToyTask, record_at_end, record_so_far, toy_trainer

from equivbench.records.plausibility import problems
from equivbench.training.loop import StepTimes
from equivbench.training.record import make_record, throughput


class NanTask(ToyTask):
    name = "nan-toy"

    def objective(self, outputs: Batch, targets: Batch, inputs: Batch) -> torch.Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return super().objective(outputs, targets, inputs) * (
            float("nan") if self.calls > 9 else 1.0
        )


def test_a_completed_run_is_a_valid_record(tmp_path: Path) -> None:
    trainer = toy_trainer("20steps", folder=tmp_path)
    trainer.train_slice(1e9)
    blocks = [trainer.time_block(0.01), trainer.time_block(0.01)]
    record = make_record(JOB, trainer, blocks, "equivariant", inference_seconds=0.0)
    assert record.status == "completed"
    assert problems(record) == []
    assert record.final == record.rungs[-1].test
    assert record.pair == "toys"
    assert record.throughput.blocks == [block.seconds for block in blocks]
    assert record.clock.timing >= sum(sum(block.readings) for block in blocks)
    assert record.throughput.samples_per_second == pytest.approx(
        8 * 2 / (blocks[0].seconds + blocks[1].seconds)
    )


def test_an_interrupted_run_is_a_valid_record() -> None:
    trainer = toy_trainer("10000steps")
    trainer.train_slice(
        0.5, report=lambda progress: trainer.stop() if progress.total is not None else None
    )
    record = record_so_far(trainer)
    assert record.status == "interrupted"
    assert problems(record) == []
    assert record.throughput.samples_per_second is None


def test_a_diverged_run_is_a_valid_record_without_a_result() -> None:
    trainer = toy_trainer("20steps", task=NanTask())
    trainer.train_slice(1e9)
    record = record_at_end(trainer)
    assert (record.status, record.reason) == ("diverged", trainer.diverged)
    assert problems(record) == []
    assert record.final is None
    assert len(record.trace) > 0


def test_throughput_is_batch_over_the_mean_step_with_its_spread() -> None:
    timing = throughput([StepTimes(0.1, [0.1] * 10), StepTimes(0.3, [0.3] * 10)], 4, "other")
    assert timing.blocks == [0.1, 0.3]
    assert timing.samples_per_second == pytest.approx(20.0)
    assert timing.step_seconds is not None
    assert (timing.step_seconds.p10, timing.step_seconds.p90) == (0.1, 0.3)
    assert timing.step_seconds.p50 == pytest.approx(0.2)
    stopped = throughput([StepTimes(0.0, [0.0]), StepTimes(0.1, [0.1, 0.0])], 4, "other")
    assert (stopped.samples_per_second, stopped.blocks) == (40.0, [])
    assert stopped.step_seconds is not None
    assert stopped.step_seconds.p10 == 0.1
    assert throughput([StepTimes(0.0, [0.0])], 4, "other").samples_per_second is None
    ordered = torch.rand(17, generator=torch.Generator().manual_seed(0))
    spread = throughput([StepTimes(1.0, ordered.tolist())], 4, None).step_seconds
    assert spread is not None
    expected = ordered.double().quantile(torch.tensor([0.1, 0.5, 0.9]).double())
    assert [spread.p10, spread.p50, spread.p90] == pytest.approx(expected.tolist())
