"""A kernel's calls recorded once in a CUDA graph and replayed: what the device takes when no Python
stands between its launches, as in a network whose step is one graph."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from functools import partial

import torch

from equivbench.errors import FailedError
from equivbench.kernels.operands import Operands, Slot
from equivbench.kernels.problem import Results
from equivbench.kernels.timing import SAMPLE, Timer

CallsToRecord = Callable[[], Results]
Recorder = Callable[[CallsToRecord], tuple[Callable[[], object], Results]]
"""Records ``work``; gives what replays it, and the results, in memory that each replay fills."""
_MOST_CALLS = 256
"""Of a graph: capturing takes as long as calling, and each call is some ten launches."""
_WARM_UP_CALLS = 3
_REPLAYS = 3
_ENOUGH_CALLS = 100
"""No clock stands still over so many."""


def cuda_graph(work: CallsToRecord) -> tuple[Callable[[], object], Results]:
    """The :data:`Recorder` of CUDA."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    # What a library sets up in its first calls must not be recorded.
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP_CALLS):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = work()
    return graph.replay, results


class GraphReplay:
    """Calls on the slots of ``operands``, recorded by ``record`` in one graph, and timed by
    ``clock``.

    The slots are filled anew between the samples, and after each the results of one recorded call,
    nobody knows which, are held against the reference.
    """

    def __init__(
        self, operands: Operands, clock: Timer, calls: int, record: Recorder = cuda_graph
    ) -> None:
        self._operands, self._clock = operands, clock
        self._slots = operands.take(max(2, min(calls, _MOST_CALLS)))
        chosen = secrets.randbelow(len(self._slots))
        self._watched: Slot = self._slots[chosen]

        def work() -> Results:
            kept: Results = {}
            for slot in self._slots:
                results = operands.call(slot)
                if slot is self._watched:
                    kept = results
            return kept

        self._replay, self._results = record(work)

    def round(self, seconds: float) -> float:
        """Seconds a call over about ``seconds`` of replays, reduced as those of
        :meth:`equivbench.kernels.measuring.Prepared.round`.

        Raises ``WrongKernelError`` where a replay's results are not the reference's, and
        ``FailedError`` where the clock stands still.
        """
        samples: list[float] = []
        spent, replays = 0.0, _REPLAYS
        while not samples or spent < seconds:
            number = secrets.randbelow(2)
            self._operands.hold(self._watched, self._operands.instances[number])
            taken = self._clock.seconds(partial(self._run, replays))
            spent += taken
            self._check(number)
            if taken >= SAMPLE:
                samples.append(taken / replays / len(self._slots))
            elif taken <= 0.0 and replays * len(self._slots) >= _ENOUGH_CALLS:
                raise FailedError(
                    f"{replays} replays of {len(self._slots)} calls take no time by the clock;"
                    " it is broken"
                )
            else:
                replays = math.ceil(replays * min(100.0, 1.2 * SAMPLE / max(taken, 1e-9))) + 1
        return self._clock.reduce(samples)

    def _run(self, replays: int) -> None:
        for _ in range(replays):
            self._replay()

    def _check(self, number: int) -> None:
        operands, slot = self._operands, self._watched
        given, answers = operands.instances[number], operands.answers[number]
        operands.check(slot, given, self._results, answers)
        for each in self._slots:
            # What is poisoned of the results is written again by the next replay.
            operands.turn(each, self._results if each is slot else {})
