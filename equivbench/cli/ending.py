"""How a command that has processes and temporary folders ends when it is told to."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def ending_by_signal() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP end the command as Ctrl-C does, so that its processes end and what
    is half-made or temporary is removed."""

    def end(*_: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), end) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
