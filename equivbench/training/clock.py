"""What a run uses of its machine: seconds, on a monotonic clock with named parts that add up to its
wall time, and joules, where the device counts them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, get_args

from equivbench.gpu import nvml_reader
from equivbench.records.schema import NotMeasured

if TYPE_CHECKING:
    import torch

ClockPart = Literal[
    "train", "compile", "data", "rungs", "evaluate", "checkpoint", "timing", "stalled", "other"
]
PARTS: tuple[ClockPart, ...] = get_args(ClockPart)
SPENT: tuple[ClockPart, ...] = ("train", "data")
"""The parts that a budget in seconds is charged with."""


_WORTH_ASKING = 1e-3
"""Seconds of a reading from which on it is asked how much of them the process was stalled."""


class Clock:
    """Seconds by part. At each moment a running clock charges exactly one part, ``other`` unless
    one was opened.

    ``wall`` is the sum of the parts by construction. A part opened inside another takes its time
    from the outer one. A new clock is paused.

    Parameters
    ----------
    now
        Returns seconds and never runs backwards (tests pass a fake one).
    synchronize
        Waits for the device. Work that was queued in a part is charged to that part, whenever
        somebody waits for it.
    stalled
        Returns the seconds, since it was last asked, in which the process had work and did not run.
        They go to the part ``stalled`` and never to the one that was open.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.perf_counter,
        synchronize: Callable[[], None] | None = None,
        stalled: Callable[[], float] | None = None,
    ) -> None:
        self._now = now
        self._synchronize = synchronize
        self._stalled = stalled
        self._owed = 0.0
        """Stalled seconds that were reported later than the time they belong to."""
        self._seconds: dict[ClockPart, float] = dict.fromkeys(PARTS, 0.0)
        self._current: ClockPart = "other"
        self._queued: ClockPart | None = None
        """The part that last queued work which nobody has waited for."""
        self._mark: float | None = None

    def resume(self) -> None:
        """Start counting, in part ``other``; raises ``RuntimeError`` if the clock is running."""
        if self._mark is not None:
            raise RuntimeError("the clock is running already")
        if self._stalled is not None:
            self._stalled()  # what happened while the other arm had the machine
        self._owed = 0.0
        self._current = "other"
        self._mark = self._now()

    def pause(self) -> None:
        """Wait for the device and stop counting: what follows (the other arm's slice) is outside
        ``wall``."""
        self.synchronize()
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
        """Charge the block, and the device's work that it queues, to ``name``.

        ``synchronize=False`` does not wait for the device at the block's ends; the wait is charged
        to ``name`` when it comes. The training loop does so between its readings of the clock.
        """
        self.synchronize() if synchronize else self._settle()
        outer, self._current = self._current, name
        try:
            yield
        finally:
            if synchronize:
                self.synchronize()
            else:
                self._settle()
                self._queued = name
            self._current = outer

    @property
    def spent(self) -> float:
        """Seconds charged to a budget: train + data."""
        self._settle()
        return sum(self._seconds[part] for part in SPENT)

    @property
    def trained_wall(self) -> float:
        """Seconds charged to a budget, with those in which the process was stalled."""
        return self.spent + self._seconds["stalled"]

    @property
    def is_asynchronous(self) -> bool:
        """Whether the device runs on its own, so that somebody must wait for it."""
        return self._synchronize is not None

    @property
    def wall(self) -> float:
        """Seconds for which the clock ran: the sum of the parts."""
        return sum(self.seconds().values())

    def seconds(self) -> dict[ClockPart, float]:
        """Seconds by part so far."""
        self._settle()
        return dict(self._seconds)

    def set(self, seconds: Mapping[str, float]) -> None:
        """Go back (or forward) to the parts of a checkpoint; parts it does not name become 0."""
        unknown = set(seconds) - set(PARTS)
        if unknown:
            raise ValueError(f"unknown clock parts {sorted(unknown)}")
        self._settle()
        self._seconds = {name: float(seconds.get(name, 0.0)) for name in PARTS}

    def charge(self, name: ClockPart, seconds: float) -> None:
        """Add ``seconds`` that passed earlier and belong to this run: a compilation whose result
        was kept."""
        self._settle()
        self._seconds[name] += seconds

    def synchronize(self) -> None:
        """Wait for the device; the wait is charged to the part that queued the work."""
        self._settle()
        if self._mark is None or self._synchronize is None:
            return
        self._synchronize()
        self._settle(self._queued)
        self._queued = None

    def scratch(self) -> Clock:
        """A clock of the same time and device that starts from nothing, for measurements off the
        record; it keeps stalled seconds out as well."""
        return Clock(self._now, self._synchronize, self._stalled)

    def _settle(self, part: ClockPart | None = None) -> None:
        """Charge the time since the last reading to ``part``, by default the current one."""
        if self._mark is None:
            return
        now = self._now()
        elapsed = max(0.0, now - self._mark)
        self._mark = max(self._mark, now)
        if self._stalled is not None and elapsed >= _WORTH_ASKING:
            self._owed += self._stalled()
        stalled = min(self._owed, elapsed)
        self._owed -= stalled
        self._seconds["stalled"] += stalled
        self._seconds[part or self._current] += elapsed - stalled


def clock_of(
    device: torch.device, stalled: Callable[[], float] | None = None, devices: int = 1
) -> Clock:
    """A new clock that waits for the work queued on ``device`` before it is read, and keeps
    ``stalled`` seconds out. It counts the seconds of all ``devices`` that work at the same time:
    so many a second."""
    now = time.perf_counter
    if devices > 1:
        now, stalled = _times(devices, now), stalled and _times(devices, stalled)
    if device.type != "cuda":
        return Clock(now, stalled=stalled)
    import torch

    return Clock(now, lambda: torch.cuda.synchronize(device), stalled)


def _times(devices: int, seconds: Callable[[], float]) -> Callable[[], float]:
    return lambda: devices * seconds()


class EnergyMeter:
    """Joules that the device used while the run had it.

    ``counter`` returns the joules since some fixed moment, or is a :class:`NotMeasured` that says
    why the device gives none.
    """

    def __init__(self, counter: Callable[[], float] | NotMeasured) -> None:
        self._counter = counter
        self.joules: float | NotMeasured = counter if isinstance(counter, NotMeasured) else 0.0

    @contextmanager
    def metered(self, clock: Clock) -> Iterator[None]:
        """Count the block, in which ``clock`` runs, and all the work that it queued: the counter is
        read when the device has done it, inside the time that the clock counts."""
        if isinstance(self._counter, NotMeasured) or isinstance(self.joules, NotMeasured):
            yield
            return
        before = self._counter()
        try:
            yield
        finally:
            clock.synchronize()
            self.joules += self._counter() - before

    def restore(self, joules: float | None) -> None:
        """Go on from the joules of a checkpoint; None where they were not measured then."""
        if isinstance(self._counter, NotMeasured):
            return
        before = NotMeasured("the energy was not measured before the run was resumed")
        self.joules = before if joules is None else joules


def energy_meter(device: torch.device, others: Sequence[torch.device] = ()) -> EnergyMeter:
    """The meter of ``device``, and of the ``others`` that an arm computes on: the total energy
    counter of NVML, where there is one."""
    if device.type != "cuda":
        return EnergyMeter(NotMeasured("no energy counter is read on a CPU"))
    counters = []
    for each in (device, *others):
        counter = nvml_reader(
            str(each),
            lambda nvml, handle: float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000.0,
            "energy",
        )
        if isinstance(counter, str):
            return EnergyMeter(NotMeasured(counter))
        counters.append(counter)
    return EnergyMeter(lambda: sum(counter() for counter in counters))
