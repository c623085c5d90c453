"""Memory on a pretended device: the peak is training's, and too little of it is told apart from
every other failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_training import Batch, ToyTask, record_at_end, toy_trainer

from equivbench.errors import FailedError
from equivbench.records.schema import NotMeasured
from equivbench.training.memory import MemoryMeter, is_out_of_memory

CUDA = torch.device("cuda")
STEP, EVALUATION = 1_000_000, 50_000_000


class Allocator:
    """What torch's allocator counts on a device."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.peak = 0
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.peak)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self._reset)

    def _reset(self, device: torch.device) -> None:
        self.peak = 0

    def use(self, count: int) -> None:
        self.peak = max(self.peak, count)


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> Allocator:
    return Allocator(monkeypatch)


class HungryTask(ToyTask):
    """Each step takes a little more than the one before."""

    name = "hungry-toy"

    def __init__(self, allocator: Allocator) -> None:
        self.allocator, self.steps = allocator, 0

    def objective(self, outputs: Batch, targets: Batch, inputs: Batch) -> torch.Tensor:
        self.steps += 1
        self.allocator.use(STEP + self.steps)
        return super().objective(outputs, targets, inputs)


def trainer_on(allocator: Allocator, folder: Path, budget: str = "20steps") -> Any:
    trainer = toy_trainer(
        budget,
        task=HungryTask(allocator),
        folder=folder,
        spend=lambda: allocator.use(EVALUATION),
    )
    trainer.memory = MemoryMeter(CUDA)
    return trainer


def test_the_peak_is_that_of_training_and_of_no_evaluation(
    allocator: Allocator, tmp_path: Path
) -> None:
    trainer = trainer_on(allocator, tmp_path)
    trainer.train_slice(1e9)
    assert allocator.peak >= EVALUATION
    found = record_at_end(trainer).memory.peak_bytes
    assert STEP < found <= STEP + trainer.arm.task.steps


def test_a_resumed_run_keeps_the_peak_of_the_process_before(
    allocator: Allocator, tmp_path: Path
) -> None:
    first = trainer_on(allocator, tmp_path)
    first.memory._peak = 7 * STEP
    first.train_slice(1e9)
    first.save()
    second = trainer_on(allocator, tmp_path)
    assert second.restore()
    assert second.memory.peak == 7 * STEP


def test_without_a_step_there_is_no_peak_of_a_device() -> None:
    assert isinstance(MemoryMeter(CUDA).peak, NotMeasured)
    of_process = MemoryMeter(torch.device("cpu")).peak
    assert isinstance(of_process, int)
    assert of_process > 30 * 2**20


def wrapped(error: Exception, layers: list[type[Exception]], named: bool) -> Exception:
    """``error`` as it arrives through ``layers``, each raised from the one before or merely while
    it was handled."""
    for layer in layers:
        try:
            try:
                raise error
            except Exception as inner:
                if named:
                    raise layer("it failed") from inner
                raise layer("it failed")  # noqa: B904
        except Exception as outer:  # noqa: BLE001  it is handed on
            error = outer
    return error


TOO_LITTLE = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]
OTHERS = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    ValueError("the word out of memory in somebody's sentence"),
    FailedError("the model cannot be compiled"),
]
LAYERS = st.lists(st.sampled_from([FailedError, RuntimeError, ValueError, TypeError]), max_size=4)


@given(error=st.sampled_from(TOO_LITTLE), layers=LAYERS, named=st.booleans())
def test_too_little_memory_is_known_through_whatever_wraps_it(
    error: Exception, layers: list[type[Exception]], named: bool
) -> None:
    assert is_out_of_memory(wrapped(error, layers, named))


@given(error=st.sampled_from(OTHERS), layers=LAYERS, named=st.booleans())
def test_nothing_else_is_taken_for_it(
    error: Exception, layers: list[type[Exception]], named: bool
) -> None:
    assert not is_out_of_memory(wrapped(error, layers, named))


def test_an_error_that_caused_itself_ends() -> None:
    error = ValueError("round")
    error.__cause__ = KeyError("and round")
    error.__cause__.__cause__ = error
    assert not is_out_of_memory(error)
