"""Ranks that are threads of one process: what passes between devices, without torch.distributed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from equivbench.ranks import Ranks
from equivbench.training.acts import Act
from equivbench.training.assembly import build_follower, build_trainer
from equivbench.training.follower import Follower
from equivbench.training.job import Job
from equivbench.training.loop import Trainer

Found = TypeVar("Found")
CPU = torch.device("cpu")


class _Table:
    """Where the threads lay down what the others pick up."""

    def __init__(self, count: int) -> None:
        self.barrier = threading.Barrier(count, timeout=120)
        self.places: list[Any] = [None] * count


class ThreadRanks(Ranks):
    """One of the ranks that meet at ``table``."""

    def __init__(
        self, number: int, table: _Table, tell: Callable[[Any], None] = lambda act: None
    ) -> None:
        super().__init__(number, [CPU] * len(table.places), tell)
        self._table = table

    def _all(self, value: Any) -> list[Any]:
        self._table.places[self.number] = value
        self._table.barrier.wait()
        found = list(self._table.places)
        self._table.barrier.wait()
        return found

    def add_up(self, tensor: Tensor) -> None:
        parts = self._all(tensor.clone())
        assert len({(part.shape, part.dtype) for part in parts}) == 1
        tensor.copy_(torch.stack(parts).sum(0))

    def copy_first(self, tensors: Mapping[str, Tensor]) -> None:
        first = self._all({name: tensor.clone() for name, tensor in tensors.items()})[0]
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(first[name])

    def gathered(self, value: Any) -> list[Any]:
        parts = self._all(value)
        return parts if self.number == 0 else []


def on_ranks(count: int, work: Callable[[Ranks], Found]) -> list[Found]:
    """What ``work`` gives on each of ``count`` ranks, all at work at the same time."""
    table = _Table(count)
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(work, ThreadRanks(number, table)) for number in range(count)]
        return [future.result() for future in futures]


@contextmanager
def led(job: Job, count: int = 2) -> Iterator[Trainer]:
    """The trainer of ``job`` as the first of ``count`` ranks, the others following it."""
    table = _Table(count)
    told: list[queue.SimpleQueue[Act | None]] = [queue.SimpleQueue() for _ in range(1, count)]

    def tell(act: Act | None) -> None:
        for each in told:
            each.put(act)

    def follow(follower: Follower, acts: queue.SimpleQueue[Act | None]) -> None:
        try:
            while (act := acts.get()) is not None:
                follower.follow(act)
        except BaseException:
            table.barrier.abort()
            raise

    # One after the other: initial weights are drawn from the generator of the process.
    trainer = build_trainer(job, ranks=ThreadRanks(0, table, tell))
    followers = [build_follower(job, ThreadRanks(number, table)) for number in range(1, count)]
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(follow, *each) for each in zip(followers, told, strict=True)]
        try:
            yield trainer
        except BaseException:
            table.barrier.abort()
            raise
        finally:
            tell(None)
        for future in futures:
            future.result()
