"""The user's wish to stop: Ctrl-C, SIGTERM, a terminal that is gone; each ends the turn under way,
so that everything is saved and recorded."""

from __future__ import annotations

import contextlib
import errno
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from equivbench.execution.executors import Callback
from equivbench.execution.plan import Contest
from equivbench.training.job import Job, Progress


class Interrupt:
    """While entered, SIGINT, SIGTERM and SIGHUP (the terminal is gone) set :attr:`asked` and end
    the turn under way; a second one raises.

    SIGHUP raises never and makes no second one: a session that ends sends several signals. Where it
    is ignored (``nohup``) it stays so. Outside the main thread signals cannot be caught, and
    :attr:`asked` stays False.
    """

    def __init__(self) -> None:
        self.asked = False
        self._by_user = False
        """Whether the user has asked, not a terminal that went away."""
        self._at_once = False
        self._turns: list[Callable[[], None]] = []
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in _requests():
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def ending(self, end_turn: Callable[[], None]) -> Iterator[None]:
        """Inside, a request calls ``end_turn``."""
        self._turns.append(end_turn)
        try:
            # A request that came just before would otherwise wait for the whole turn.
            if self.asked:
                end_turn()
            yield
        finally:
            self._turns.remove(end_turn)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, nothing is worth saving yet: the first request raises ``KeyboardInterrupt``."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        hung_up = number == getattr(signal, "SIGHUP", None)
        second = self._by_user and not hung_up
        self.asked = True
        self._by_user |= not hung_up
        if second or self._at_once:
            raise KeyboardInterrupt
        for end_turn in self._turns:
            end_turn()


def _requests() -> list[signal.Signals]:
    """The signals that ask to stop."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    hung_up = getattr(signal, "SIGHUP", None)
    if hung_up is not None and signal.getsignal(hung_up) is not signal.SIG_IGN:
        numbers.append(hung_up)
    return numbers


_GONE = (
    *(errno.EPIPE, errno.EIO, errno.ENXIO, errno.EBADF, errno.ECONNRESET, errno.ENOTCONN),
    getattr(errno, "ESTALE", errno.EIO),
)
"""How the system says that a pipe or a connection is closed or a terminal is gone."""
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG, errno.EAGAIN)
"""And that there is no room for a line just now."""


class WhileHeard(Callback):
    """Tells ``callback`` how runs go as long as that can write: a terminal that is gone costs
    nobody their run, and neither does a disk too full for a line of it. Any other error is the
    callback's own and is raised."""

    def __init__(self, callback: Callback) -> None:
        self._callback = callback

    def begin(self, contest: Contest, jobs: list[Job]) -> None:
        """Pass it on."""
        self._tell(lambda callback: callback.begin(contest, jobs))

    def show(self, job: Job, progress: Progress) -> None:
        """Pass it on."""
        self._tell(lambda callback: callback.show(job, progress))

    def trained(self, job: Job, progress: Progress) -> None:
        """Pass it on."""
        self._tell(lambda callback: callback.trained(job, progress))

    def phase(self, text: str) -> None:
        """Pass it on."""
        self._tell(lambda callback: callback.phase(text))

    def note(self, text: str) -> None:
        """Pass it on."""
        self._tell(lambda callback: callback.note(text))

    def end(self) -> None:
        """Pass it on."""
        self._tell(lambda callback: callback.end())

    def _tell(self, act: Callable[[Callback], None]) -> None:
        try:
            act(self._callback)
        except OSError as error:
            if isinstance(error, BrokenPipeError) or error.errno in _GONE:
                self._callback = Callback()
            elif error.errno not in _FULL:
                raise
