"""Ctrl-C ends the turn under way, a second one ends at once, and outside nothing is changed."""

from __future__ import annotations

import os
import signal

import pytest

from equivbench.execution.contest import Interrupt


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


def test_a_second_request_raises():
    with Interrupt() as interrupt:
        press()
        with pytest.raises(KeyboardInterrupt), interrupt.ending(Turn().end_turn):
            press()


def test_while_nothing_is_worth_saving_the_first_request_raises():
    with Interrupt() as interrupt, pytest.raises(KeyboardInterrupt), interrupt.at_once():
        press()
    assert interrupt.asked


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interrupt():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
