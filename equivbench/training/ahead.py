"""Batches read ahead: where the device computes on its own, the next ones are prepared while it is
at work on the last."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from equivbench.training.data import Assembled, Batches

DEPTH = 8
"""Batches that are prepared before they are asked for, at most. The thread that prepares them is
woken when half of them are left and then makes several in a row: to wake it for each one costs the
training loop more than to take one that is ready."""
_LEAST_DEPTH = 2
_BYTES_AHEAD = 2**26
"""Of the batches that wait, where they are large (grids)."""

T = TypeVar("T")


class _Ready(NamedTuple):
    batch: Any
    tensors: list[Tensor]
    """Those of the batch that are on a GPU."""
    done: Any
    """The event of the device after which they hold what they should; None on a host."""
    error: BaseException | None = None
    """What making the batch raised, in its place."""


class _BatchQueue:
    """Batches of ``count`` samples one after the other from position ``start`` on, some of them
    made before they are taken."""

    def __init__(self, start: int, count: int) -> None:
        self.start, self.count = start, count
        self.ready: SimpleQueue[_Ready] = SimpleQueue()
        self._lock = threading.Lock()
        self._taken = self._made = 0
        self._depth = _LEAST_DEPTH
        self._making = False
        self._left = False

    def is_next(self, start: int, count: int) -> bool:
        """Whether these are the samples of the batch that is taken next."""
        return (start, count) == (self.start + self._taken * self.count, self.count)

    def take_next(self) -> bool:
        """Count one more batch as taken; whether somebody is to begin to make more."""
        with self._lock:
            self._taken += 1
            begin = not self._making and self._made - self._taken <= self._depth // 2
            self._making |= begin
            return begin

    def next_to_make(self) -> int | None:
        """The position of the batch to be made now; None, and nobody is making any, if enough are
        ready or no more are wanted."""
        with self._lock:
            if self._left or self._made - self._taken >= self._depth:
                self._making = False
                return None
            position = self.start + self._made * self.count
            self._made += 1
            return position

    def choose_depth(self, batch_bytes: int) -> None:
        """Prepare as many batches of this size as memory allows."""
        self._depth = max(_LEAST_DEPTH, min(DEPTH, _BYTES_AHEAD // max(1, batch_bytes)))

    def leave(self) -> None:
        """Nobody takes any of it any more."""
        self._left = True


class _Maker:
    """Makes the batches of queues, on a stream of its own where ``device`` is a GPU."""

    def __init__(self, make: Callable[[int, int], Any], device: torch.device) -> None:
        self._make, self._device = make, device
        self._stream: Any = None

    def fill(self, queue: _BatchQueue) -> None:
        """Make batches of ``queue`` until enough are ready; the last is the error, if there is
        one."""
        while (position := queue.next_to_make()) is not None:
            try:
                ready = self._made(position, queue.count)
                queue.choose_depth(sum(each.nbytes for each in _tensors_in(ready.batch)))
            except BaseException as error:  # noqa: BLE001  whoever asks for the batch gets it
                queue.leave()
                ready = _Ready(None, [], None, error)
            queue.ready.put(ready)

    def _made(self, start: int, count: int) -> _Ready:
        if self._device.type != "cuda":
            return _Ready(self._make(start, count), [], None)
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._stream):
            batch = self._make(start, count)
            on_gpu = [each for each in _tensors_in(batch) if each.device.type == "cuda"]
            return _Ready(batch, on_gpu, self._stream.record_event())


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
        self._maker, self._device = _Maker(make, device), device
        # Its thread ends when nobody holds the pool any more.
        self._pool = ThreadPoolExecutor(1, "batches ahead")
        self._queue: _BatchQueue | None = None

    def at(self, start: int, count: int) -> T:
        """The ``count`` samples from position ``start`` of the order on; raises what making them
        raises."""
        queue = self._queue
        if queue is None or not queue.is_next(start, count):
            if queue is not None:
                queue.leave()
            queue = self._queue = _BatchQueue(start, count)
        if queue.take_next():
            self._pool.submit(self._maker.fill, queue)
        ready = queue.ready.get()
        if ready.error is not None:
            self._queue = None
            raise ready.error
        if ready.done is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(ready.done)
            for tensor in ready.tensors:
                # Its memory, of another stream, is kept until this one is done with it.
                tensor.record_stream(stream)
        batch: T = ready.batch
        return batch


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
