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
    ahead, on_demand = (kind(*about(ToySplit(17, 0))) for kind in (BatchesAhead, Batches))
    for start, count, times in asked:
        for step in range(times):
            position = start + step * count
            assert equal(ahead.at(position, count), on_demand.at(position, count))


def test_the_next_batches_are_made_without_being_asked_for() -> None:
    split = ToySplit(1000, 0)
    batches = BatchesAhead(*about(split))
    batches.at(0, 4)
    wait_for(lambda: len(split.collated) == 1 + DEPTH)
    batches.at(4, 4)
    wait_for(lambda: len(split.collated) == 2 + DEPTH)
    assert len({tuple(each) for each in split.collated}) == len(split.collated), "each once"


def test_what_making_a_batch_raises_reaches_whoever_asks_for_it() -> None:
    class Broken(ToySplit):
        def collate(self, indices: torch.Tensor) -> dict[str, torch.Tensor]:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        BatchesAhead(*about(Broken(10, 0))).at(0, 2)


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
