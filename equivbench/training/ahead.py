"""Batches read ahead: where the device computes on its own, the next ones are prepared while it is
at work on the last."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from equivbench.training.data import Assembled, Batches

DEPTH = 2
"""Batches that are prepared before they are asked for. More would hide no more: the host is behind
or it is not."""

T = TypeVar("T")


class _Ready(NamedTuple):
    batch: Any
    done: Any
    """The event of the device after which the tensors hold what they should; None on a host."""


class ReaderAhead(Generic[T]):
    """What ``make(start, count)`` gives in the order of training, tuples and mappings of tensors on
    ``device``, made by a thread while the steps before it are under way.

    A batch depends on the seed and its position alone, so those that are read ahead are those that
    would be made on demand, to the bit. Whoever asks for another position than the next (a branch
    that is cooled down, a step that is undone) gets it, and from there on what follows it.

    What a run is charged for is what it waits for. A paused run has at most :data:`DEPTH` batches
    made for it while the other arm has the machine. On a CPU the thread would take its cores from
    the step, so batches are made on demand there.
    """

    def __init__(self, make: Callable[[int, int], T], device: torch.device) -> None:
        self._make, self._device = make, device
        # Its thread ends when nobody holds the pool any more.
        self._pool = ThreadPoolExecutor(1, "batches ahead")
        self._ahead: deque[tuple[int, int, Future[_Ready]]] = deque()
        self._stream: Any = None

    def at(self, start: int, count: int) -> T:
        """The ``count`` samples from position ``start`` of the order on; raises what making them
        raises."""
        if not self._ahead or self._ahead[0][:2] != (start, count):
            for *_, unwanted in self._ahead:
                unwanted.cancel()
            self._ahead.clear()
            self._read(start, count)
        future = self._ahead.popleft()[2]
        while len(self._ahead) < DEPTH:
            last = self._ahead[-1][0] if self._ahead else start
            self._read(last + count, count)
        ready = future.result()
        batch: T = ready.batch
        if ready.done is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(ready.done)
            for tensor in _tensors_in(batch):
                _used_on(tensor, stream)
        return batch

    def _read(self, start: int, count: int) -> None:
        self._ahead.append((start, count, self._pool.submit(self._made, start, count)))

    def _made(self, start: int, count: int) -> _Ready:
        if self._device.type != "cuda":
            return _Ready(self._make(start, count), None)
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._stream):
            batch = self._make(start, count)
            return _Ready(batch, self._stream.record_event())


class BatchesAhead(Batches):
    """The same batches, read ahead."""

    def __init__(self, *about: Any) -> None:
        super().__init__(*about)
        self._reader = ReaderAhead(Batches(*about).at, self._device)

    def at(self, start: int, count: int) -> Assembled:
        """The ``count`` samples from position ``start`` of the order on; raises what making them
        raises."""
        return self._reader.at(start, count)


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | Mapping):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors_in(each)


def _used_on(tensor: Tensor, stream: Any) -> None:
    """Keep the memory of ``tensor``, made on another stream, until ``stream`` is done with it."""
    if tensor.device.type == "cuda":
        tensor.record_stream(stream)
