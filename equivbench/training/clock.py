"""What a run uses of its machine: seconds, on a monotonic clock with named parts that add up to its
wall time, and joules, where the device counts them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, get_args

import torch

from equivbench.environment import nvml_reader
from equivbench.records.schema import NotMeasured

ClockPart = Literal["train", "compile", "data", "evaluate", "checkpoint", "timing", "other"]
PARTS: tuple[ClockPart, ...] = get_args(ClockPart)


class Clock:
    """Seconds by part. At each moment a running clock charges exactly one part, ``other`` unless
    one was opened.

    ``wall`` is the sum of the parts by construction. A part opened inside another takes its time
    from the outer one. ``now`` returns seconds and never runs backwards (tests pass a fake one);
    ``synchronize`` waits for the device, so that work queued in a part is charged to that part. A
    new clock is paused.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.perf_counter,
        synchronize: Callable[[], None] | None = None,
    ) -> None:
        self._now = now
        self._synchronize = synchronize
        self._seconds: dict[ClockPart, float] = dict.fromkeys(PARTS, 0.0)
        self._current: ClockPart = "other"
        self._mark: float | None = None

    def resume(self) -> None:
        """Start counting, in part ``other``; raises ``RuntimeError`` if the clock is running."""
        if self._mark is not None:
            raise RuntimeError("the clock is running already")
        self._current = "other"
        self._mark = self._now()

    def pause(self) -> None:
        """Stop counting: what follows (the other arm's slice) is outside ``wall``."""
        self._settle(synchronize=True)
        self._mark = None

    @property
    def is_running(self) -> bool:
        """Whether the clock counts now."""
        return self._mark is not None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count inside the block only."""
        self.resume()
        try:
            yield
        finally:
            self.pause()

    @contextmanager
    def part(self, name: ClockPart, *, synchronize: bool = True) -> Iterator[None]:
        """Charge the block to ``name``.

        ``synchronize=False`` does not wait for the device at the block's ends: the work it queued
        is charged to the part in which somebody next waits. The training loop does so between its
        readings of the clock.
        """
        self._settle(synchronize)
        outer, self._current = self._current, name
        try:
            yield
        finally:
            self._settle(synchronize)
            self._current = outer

    @property
    def spent(self) -> float:
        """Seconds charged to a budget: train + data."""
        self._settle(synchronize=False)
        return self._seconds["train"] + self._seconds["data"]

    @property
    def wall(self) -> float:
        """Seconds for which the clock ran: the sum of the parts."""
        return sum(self.seconds().values())

    def seconds(self) -> dict[ClockPart, float]:
        """Seconds by part so far."""
        self._settle(synchronize=False)
        return dict(self._seconds)

    def set(self, seconds: Mapping[str, float]) -> None:
        """Go back (or forward) to the parts of a checkpoint; parts it does not name become 0."""
        unknown = set(seconds) - set(PARTS)
        if unknown:
            raise ValueError(f"unknown clock parts {sorted(unknown)}")
        self._settle(synchronize=False)
        self._seconds = {name: float(seconds.get(name, 0.0)) for name in PARTS}

    def synchronize(self) -> None:
        """Wait for the device, charging the wait to the current part."""
        self._settle(synchronize=True)

    def scratch(self) -> Clock:
        """A clock of the same time and device that starts from nothing, for measurements off the
        record."""
        return Clock(self._now, self._synchronize)

    def _settle(self, synchronize: bool) -> None:
        """Charge the time since the last reading to the current part."""
        if self._mark is None:
            return
        if synchronize and self._synchronize is not None:
            self._synchronize()
        now = self._now()
        self._seconds[self._current] += max(0.0, now - self._mark)
        self._mark = max(self._mark, now)


def clock_of(device: torch.device) -> Clock:
    """A new clock that waits for the work queued on ``device`` before it is read."""
    if device.type != "cuda":
        return Clock()
    return Clock(synchronize=lambda: torch.cuda.synchronize(device))


class EnergyMeter:
    """Joules that the device used while the run had it.

    ``counter`` returns the joules since some fixed moment, or is a :class:`NotMeasured` that says
    why the device gives none.
    """

    def __init__(self, counter: Callable[[], float] | NotMeasured) -> None:
        self._counter = counter
        self.joules: float | NotMeasured = counter if isinstance(counter, NotMeasured) else 0.0

    @contextmanager
    def metered(self) -> Iterator[None]:
        """Count the block."""
        if isinstance(self._counter, NotMeasured) or isinstance(self.joules, NotMeasured):
            yield
            return
        before = self._counter()
        try:
            yield
        finally:
            self.joules += self._counter() - before

    def restore(self, joules: float | None) -> None:
        """Go on from the joules of a checkpoint; None where they were not measured then."""
        if isinstance(self._counter, NotMeasured):
            return
        before = NotMeasured("the energy was not measured before the run was resumed")
        self.joules = before if joules is None else joules


def energy_meter(device: torch.device) -> EnergyMeter:
    """The meter of ``device``: the total energy counter of NVML, where there is one."""
    if device.type != "cuda":
        return EnergyMeter(NotMeasured("no energy counter is read on a CPU"))
    counter = nvml_reader(
        str(device),
        lambda nvml, handle: float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000.0,
        "energy",
    )
    return EnergyMeter(NotMeasured(counter) if isinstance(counter, str) else counter)
