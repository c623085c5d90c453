"""The wish to stop: Ctrl-C, SIGTERM, a terminal that is gone, a scheduler's warning; each ends the
turn under way, so that everything is saved and recorded."""

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
    """While entered, SIGINT, SIGTERM, SIGHUP (the terminal is gone) and SIGUSR1 (a scheduler says
    that time is nearly up) set :attr:`asked` and end the turns under way; a second one kills the
    workers and raises.

    SIGHUP and SIGUSR1 make no second one: a session or a job that ends sends
    several signals. SIGHUP stays ignored where it is (``nohup``). Outside the main thread signals
    cannot be caught, and :attr:`asked` stays False.
    """

    def __init__(self) -> None:
        self.asked = False
        self.time_is_up = False
        """Whether a scheduler has said that its time limit is near."""
        self.now = False
        """Whether it was asked twice: nothing is waited for."""
        self._by_user = False
        """Whether somebody has asked who may ask again, not a terminal that went away."""
        self._at_once = False
        self._turns: list[Callable[[], None]] = []
        self._kills: list[Callable[[], None]] = []
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
    def killing(self, kill: Callable[[], None]) -> Iterator[None]:
        """Inside, a second request calls ``kill``."""
        self._kills.append(kill)
        try:
            yield
        finally:
            self._kills.remove(kill)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, nothing is worth saving yet: the first request raises ``KeyboardInterrupt``, in
        the main thread alone."""
        self._at_once = threading.current_thread() is threading.main_thread()
        try:
            yield
        finally:
            self._at_once = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = number in (signal.SIGINT, signal.SIGTERM)
        second = self._by_user and again
        self.asked = True
        self.time_is_up |= number == getattr(signal, "SIGUSR1", None)
        self._by_user |= again
        if second:
            self.now = True
            for kill in list(self._kills):
                kill()
        if second or self._at_once:
            raise KeyboardInterrupt
        for end_turn in list(self._turns):
            end_turn()


def _requests() -> list[signal.Signals]:
    """The signals that ask to stop."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGUSR1"):
        numbers.append(signal.SIGUSR1)
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

    def too_large(self, job: Job, why: str) -> None:
        """Pass it on."""
        self._tell(lambda callback: callback.too_large(job, why))

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
