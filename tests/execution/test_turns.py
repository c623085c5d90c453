"""A worker whose clock counts less than the turns that it had is found out; a busy machine, a short
run and an orchestrator that was stopped are not."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivbench.execution.turns import LOOK_SECONDS, Turns, Waiting


def turns(rate: float, *, number: int = 10, seconds: float = 4.0, began: float = 100.0) -> Turns:
    """``number`` turns of which the clock counts the part ``rate``."""
    watch = Turns()
    watch.told(began)
    for turn in range(number):
        watch.over(seconds, began + (turn + 1) * seconds * rate)
    return watch


@given(st.floats(0.0, 0.7), st.integers(2, 50))
def test_a_clock_that_runs_slow_is_named_with_both_counts(rate: float, number: int) -> None:
    said = turns(rate, number=number).disagreement()
    assert said is not None
    assert f"of the {4 * number:.1f} s" in said


@given(st.floats(0.8, 1.2), st.integers(1, 50))
def test_an_honest_clock_is_believed(rate: float, number: int) -> None:
    assert turns(rate, number=number).disagreement() is None


def test_what_took_seconds_in_all_is_not_judged() -> None:
    assert turns(0.0, number=1).disagreement() is None
    assert Turns().disagreement() is None


def test_waking_up_on_a_busy_machine_is_no_slow_clock() -> None:
    watch = Turns()
    watch.told(0.0)
    for turn in range(100):
        watch.over(0.5, 0.25 * (turn + 1))
    assert watch.disagreement() is None


def test_time_in_which_this_process_was_stopped_is_not_waited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [10.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    waiting = Waiting()
    for _ in range(4):
        now[0] += LOOK_SECONDS
        waiting.seconds()
    assert waiting.seconds() == pytest.approx(4 * LOOK_SECONDS)
    now[0] += 3600.0
    assert waiting.seconds() == pytest.approx(5 * LOOK_SECONDS)
    assert waiting.seconds(since=now[0] - 0.1) == pytest.approx(0.1)
