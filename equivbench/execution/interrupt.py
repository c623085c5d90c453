"""Ctrl-C as a request: the turn under way ends, state is saved, records are written; a second one
ends at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class HasTurn(Protocol):
    """What can be told to end its turn."""

    def end_turn(self) -> None:
        """End the turn under way after the step at hand."""


class Interrupt:
    """While entered, SIGINT and SIGTERM set :attr:`asked` and end the turn under way; a second one
    raises.

    Outside the main thread signals cannot be caught, and :attr:`asked` stays False.
    """

    def __init__(self) -> None:
        self.asked = False
        self._at_once = False
        self._turns: list[HasTurn] = []
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def ending(self, turn: HasTurn) -> Iterator[None]:
        """Inside, a request ends ``turn``."""
        self._turns.append(turn)
        try:
            # A request that came just before would otherwise wait for the whole turn.
            if self.asked:
                turn.end_turn()
            yield
        finally:
            self._turns.remove(turn)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, nothing is worth saving yet: the first request raises ``KeyboardInterrupt``."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        second = self.asked
        self.asked = True
        if second or self._at_once:
            raise KeyboardInterrupt
        for turn in self._turns:
            turn.end_turn()
