"""Batches that are read ahead: the bits of those made on demand, prepared while a step runs, and no
thread once nobody holds them."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretend_device import PretendDevice
from toy_training import FakeTime, ToySplit, ToyTask, toy_trainer
from waiting import wait_for

from equivbench.specs import Recipe
from equivbench.training import ahead
from equivbench.training.ahead import DEPTH, BatchesAhead
from equivbench.training.data import Assembled, Batches

RECIPE = Recipe(learning_rate=1e-3, batch_size=4, augmentation="haar", augmentation_fraction=0.5)


def about(split: Any) -> tuple[Any, ...]:
    return (ToyTask(), split, RECIPE, {}, 0, torch.device("cpu"))


def equal(one: Assembled, other: Assembled) -> bool:
    return all(
        mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
        for mine, theirs in zip(one, other, strict=True)
    )


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9), st.integers(1, 5)), max_size=6))
def test_batches_read_ahead_are_those_made_on_demand(asked: list[tuple[int, int, int]]) -> None:
    before = set(threading.enumerate())
    read, on_demand = (kind(*about(ToySplit(17, 0))) for kind in (BatchesAhead, Batches))
    for start, count, times in asked:
        for step in range(times):
            position = start + step * count
            assert equal(read.at(position, count), on_demand.at(position, count))
    del read
    # The checks of types draw random numbers, which none may while Hypothesis draws its own.
    wait_for(lambda: set(threading.enumerate()) <= before, every=0.001)


def test_the_next_batches_are_made_without_being_asked_for() -> None:
    split = ToySplit(1000, 0)
    batches = BatchesAhead(*about(split))
    for taken in range(1, 4 * DEPTH):
        batches.at(4 * (taken - 1), 4)
        wait_for(lambda taken=taken: len(split.collated) >= taken + DEPTH // 2)
        assert len(split.collated) <= taken + DEPTH
    assert len({tuple(each) for each in split.collated}) == len(split.collated), "each once"


def test_few_large_batches_are_made_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_BYTES_AHEAD", 1)
    split = ToySplit(1000, 0)
    batches = BatchesAhead(*about(split))
    for taken in range(1, 10):
        batches.at(4 * (taken - 1), 4)
        wait_for(lambda taken=taken: len(split.collated) > taken)
        assert len(split.collated) <= taken + 2


def test_whoever_takes_them_as_fast_as_they_are_made_gets_them_in_order() -> None:
    read, on_demand = (kind(*about(ToySplit(50, 0))) for kind in (BatchesAhead, Batches))
    for position in range(0, 2000, 4):
        assert equal(read.at(position, 4), on_demand.at(position, 4))


class Broken(ToySplit):
    """Cannot be read from the third batch on."""

    def collate(self, indices: torch.Tensor) -> dict[str, torch.Tensor]:
        if len(self.collated) == 2:
            raise OSError("the disk is gone")
        return super().collate(indices)


def test_what_making_a_batch_raises_reaches_whoever_asks_for_it() -> None:
    batches = BatchesAhead(*about(Broken(10, 0)))
    for position in (0, 2):
        batches.at(position, 2)
    for _ in range(2):
        with pytest.raises(OSError, match="the disk is gone"):
            batches.at(4, 2)


def readers() -> int:
    """Threads that read ahead for somebody: what one was still at work on when it was let go is
    garbage only once it is done."""
    gc.collect()
    return sum(each.name.startswith("batches ahead") for each in threading.enumerate())


def test_the_thread_ends_with_the_batches() -> None:
    wait_for(lambda: not readers())
    batches = BatchesAhead(*about(ToySplit(10, 0)))
    batches.at(0, 2)
    assert readers() == 1
    del batches
    wait_for(lambda: not readers())


def test_a_run_on_an_asynchronous_device_reads_ahead_and_ends_on_the_same_weights() -> None:
    on_host = toy_trainer("40steps", rungs=2)
    device = PretendDevice(FakeTime())
    on_device = toy_trainer("40steps", rungs=2, clock=device.clock())
    assert isinstance(on_device.batches, BatchesAhead)
    assert not isinstance(on_host.batches, BatchesAhead)
    for trainer in (on_host, on_device):
        while not trainer.finished:
            trainer.train_slice(1.0)
    ours, theirs = on_host.tensors(), on_device.tensors()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
