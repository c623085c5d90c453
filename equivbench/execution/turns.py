"""The orchestrator's own watch on the clock of a worker: the seconds for which it had turns."""

from __future__ import annotations

import time

LOOK_SECONDS = 0.5
"""How often whoever waits for a worker looks up."""
_MISSED = 2.0
"""A look so much late means that this process itself was stopped (Ctrl-Z)."""
_LEAST_CLAIMED = 0.8
"""Part of the seconds of its turns that a worker's clock must count."""
_A_TURN = 0.25
"""Seconds a turn that a worker may take to wake up, on a busy machine."""
_SHORTEST = 5.0
"""Seconds of turns below which nothing is said."""


class Waiting:
    """Time in which this process was awake, for one wait of it."""

    def __init__(self) -> None:
        self._since = self._looked = time.monotonic()

    def seconds(self, since: float = 0.0) -> float:
        """Seconds awake since the wait began, or since the later moment ``since``. To be asked at
        least every :data:`LOOK_SECONDS`."""
        now = time.monotonic()
        missed = now - self._looked - LOOK_SECONDS
        if missed > _MISSED:
            self._since += missed
        self._looked = now
        return max(0.0, now - max(self._since, since))


class Turns:
    """Seconds for which a worker had turns, by the clock here and by its own."""

    def __init__(self) -> None:
        self._turns, self._held, self._claimed = 0, 0.0, 0.0
        self._wall: float | None = None

    def told(self, wall: float) -> None:
        """Its clock stands at ``wall`` seconds, and no turn is on."""
        self._wall = wall

    def over(self, seconds: float, wall: float) -> None:
        """A turn of ``seconds`` is over, and its clock stands at ``wall`` seconds."""
        if self._wall is not None:
            self._turns += 1
            self._held += seconds
            self._claimed += wall - self._wall
        self._wall = wall

    def disagreement(self) -> str | None:
        """What is wrong with its clock; None if nothing is, or too little is known."""
        least = _LEAST_CLAIMED * (self._held - _A_TURN * self._turns)
        if self._held < _SHORTEST or self._claimed >= least:
            return None
        return (
            f"its clock counted {self._claimed:.1f} s of the {self._held:.1f} s for which it had "
            "the machine, so no time of it can be believed"
        )
