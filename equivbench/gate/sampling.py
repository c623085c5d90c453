"""Samples of at least ten milliseconds each, and the least of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

Round = Callable[[float], float]
"""Measures for about so many seconds and returns seconds a call, the least that was seen."""
SAMPLE = 0.01
"""Seconds below which the clock and the scheduler show in a sample."""
FEWEST = 3
"""Samples of which the least is taken, however long they are."""


def looped(call: Callable[[], None]) -> Round:
    """``call`` repeated to at least ``SAMPLE`` a sample; it has been called before the first sample
    is taken."""
    call()
    repeats = _repeats(call)

    def measure(seconds: float) -> float:
        end = time.perf_counter() + seconds
        samples: list[float] = []
        gc.collect()
        gc.disable()
        try:
            while len(samples) < FEWEST or time.perf_counter() < end:
                samples.append(_sample(call, repeats) / repeats)
        finally:
            gc.enable()
        return min(samples)

    return measure


def _repeats(call: Callable[[], None]) -> int:
    repeats = 1
    while (taken := _sample(call, repeats)) < SAMPLE:
        # Half as much again as seems needed, and never ten times more at once: the first calls may
        # be slow.
        repeats = max(
            repeats + 1, min(10 * repeats, int(1.5 * repeats * SAMPLE / max(taken, 1e-9)))
        )
    return repeats


def _sample(call: Callable[[], None], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return time.perf_counter() - start
