"""Ctrl-C ends the turn under way, a second one ends at once, and outside nothing is changed."""

from __future__ import annotations

import errno
import io
import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from equivbench.execution.executors import Callback
from equivbench.execution.interrupt import Interrupt, WhileHeard
from equivbench.execution.messages import Conclude, Slice
from equivbench.execution.workers import WorkerProcess


class Turn:
    def __init__(self):
        self.ended = 0

    def end_turn(self):
        self.ended += 1


def press():
    os.kill(os.getpid(), signal.SIGINT)


def test_a_request_ends_the_turn_under_way_and_every_later_one():
    with Interrupt() as interrupt:
        turn, later = Turn(), Turn()
        with interrupt.ending(turn.end_turn):
            assert not interrupt.asked
            press()
        assert interrupt.asked
        assert turn.ended == 1
        with interrupt.ending(later.end_turn):
            assert later.ended == 1


def test_a_worker_told_to_end_a_turn_that_was_over_may_take_its_time_to_save():
    worker = WorkerProcess.__new__(WorkerProcess)
    process: Any = SimpleNamespace(terminate=lambda: None, stdin=io.BytesIO())
    worker._process = process
    worker._hangs_after, worker._longest_silence, worker._asked_to_end = 1800.0, 0.0, None
    worker._send(Slice(1.0))
    worker.end_turn()
    assert worker._patience() < 60
    worker._send(Conclude())
    assert worker._patience() == 1800


def test_a_second_request_raises():
    with Interrupt() as interrupt:
        press()
        with pytest.raises(KeyboardInterrupt), interrupt.ending(Turn().end_turn):
            press()


def test_while_nothing_is_worth_saving_the_first_request_raises():
    with Interrupt() as interrupt, pytest.raises(KeyboardInterrupt), interrupt.at_once():
        press()
    assert interrupt.asked


@pytest.fixture
def hears_of_hang_ups():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hears_of_hang_ups")
def test_a_terminal_that_is_gone_asks_and_never_raises():
    with Interrupt() as interrupt:
        turn = Turn()
        with interrupt.ending(turn.end_turn):
            os.kill(os.getpid(), signal.SIGHUP)
            assert interrupt.asked
            # A session that ends sends both.
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)
        assert turn.ended == 3


def test_nohup_keeps_a_run_going():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interrupt.asked
    finally:
        signal.signal(signal.SIGHUP, before)


class Failing(Callback):
    """One whose lines fail with ``error``."""

    def __init__(self, error: Exception) -> None:
        self.error, self.told = error, 0

    def note(self, text: str) -> None:
        self.told += 1
        raise self.error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EIO, "Input/output error"), 1),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1),
        (BrokenPipeError(), 1),
        (OSError(errno.ENOSPC, "No space left on device"), 2),
    ],
    ids=["terminal gone", "pipe closed", "pipe closed, no number", "disk full"],
)
def test_who_cannot_be_told_costs_nobody_their_run(error, told):
    """One who is gone is not told again, one without room is."""
    callback = Failing(error)
    heard = WhileHeard(callback)
    heard.note("one")
    heard.note("two")
    heard.end()
    assert callback.told == told


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "no such file"), PermissionError(), ValueError("x")]
)
def test_what_else_goes_wrong_in_a_callback_is_raised(error):
    with pytest.raises(type(error)):
        WhileHeard(Failing(error)).note("one")


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interrupt():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
