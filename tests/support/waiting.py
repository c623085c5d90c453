"""Waiting for a state, never for a moment: no test may depend on how fast the machine is."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def wait_for(condition: Callable[[], bool], seconds: float = 300.0, every: float = 0.02) -> None:
    """Return when ``condition`` holds, which is looked at ``every`` so many seconds; fail after
    ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(every)


def comes_to(read: Callable[[], Value], wanted: Value, seconds: float = 60.0) -> Value:
    """What ``read`` gives as soon as that is ``wanted``, else what it gave last.

    Made for ``assert comes_to(read, wanted) == wanted``, whose failure then shows both values.
    """
    deadline = time.monotonic() + seconds
    while (found := read()) != wanted and time.monotonic() < deadline:
        time.sleep(0.02)
    return found
