"""A device that runs on its own, pretended: work is queued in no time and takes its seconds on the
device's own timeline; who synchronises waits for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from toy_training import FakeTime

from equivbench.training.clock import Clock


@dataclass
class PretendDevice:
    """``busy_until`` is the moment at which all queued work is done; ``used`` sums the seconds of
    all work by what it was for."""

    time: FakeTime
    busy_until: float = 0.0
    used: dict[str, float] = field(default_factory=dict)

    def queue(self, seconds: float, what: str = "train", launch: float = 0.0) -> None:
        """Queue work of ``seconds`` that costs the host ``launch`` seconds to queue."""
        self.time.advance(launch)
        self.busy_until = max(self.busy_until, self.time()) + seconds
        self.used[what] = self.used.get(what, 0.0) + seconds

    def synchronize(self) -> None:
        """Wait until all queued work is done."""
        self.time.advance(max(0.0, self.busy_until - self.time()))

    def clock(self) -> Clock:
        """A paused clock of this device."""
        return Clock(self.time, synchronize=self.synchronize)
