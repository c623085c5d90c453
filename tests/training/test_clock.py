"""The clock: its parts add up to the time for which it ran, whatever happens inside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_training import FakeTime

from equivbench.training.clock import PARTS, Clock, ClockPart

DYADIC = st.integers(0, 1000).map(
    lambda n: n / 64
)  # sums of these are exact, so equality can be asked for


@given(st.lists(st.tuples(st.sampled_from(PARTS), DYADIC, DYADIC, DYADIC), max_size=20))
def test_parts_add_up_to_the_time_between_resume_and_pause(
    slices: list[tuple[ClockPart, float, float, float]],
) -> None:
    time = FakeTime()
    clock = Clock(time)
    held = 0.0
    by_part = dict.fromkeys(PARTS, 0.0)
    for part, inside, outside, away in slices:
        clock.resume()
        with clock.part(part):
            time.advance(inside)
        time.advance(outside)
        clock.pause()
        time.advance(away)  # the other arm's slice
        held += inside + outside
        by_part[part] += inside
        by_part["other"] += outside
    assert clock.seconds() == by_part
    assert clock.wall == sum(clock.seconds().values()) == held
    assert clock.spent == by_part["train"] + by_part["data"]


def test_a_part_inside_a_part_takes_its_time_from_the_outer_one() -> None:
    time = FakeTime()
    clock = Clock(time)
    with clock.running(), clock.part("evaluate"):
        time.advance(1)
        with clock.part("checkpoint"):
            time.advance(2)
        time.advance(4)
    assert (clock.seconds()["evaluate"], clock.seconds()["checkpoint"], clock.wall) == (5, 2, 7)


def test_an_error_inside_a_part_leaves_the_clock_consistent() -> None:
    time = FakeTime()
    clock = Clock(time)
    with pytest.raises(KeyError), clock.running(), clock.part("train"):
        time.advance(1)
        raise KeyError
    time.advance(10)
    assert clock.wall == clock.spent == 1
    assert not clock.is_running


def test_time_that_runs_backwards_never_shrinks_a_part() -> None:
    time = FakeTime()
    clock = Clock(time)
    with clock.running(), clock.part("train"):
        time.advance(2)
        assert clock.spent == 2
        time.advance(-1)
        assert clock.spent == 2
        time.advance(1.5)
    assert clock.spent == 2.5


def test_work_queued_on_the_device_is_charged_to_the_part_that_queued_it() -> None:
    time = FakeTime()
    queue: list[float] = []

    def wait() -> None:
        time.advance(sum(queue))
        queue.clear()

    clock = Clock(time, synchronize=wait)
    with clock.running():
        with clock.part("train"):
            queue.append(3.0)
        with clock.part("evaluate"):
            queue.append(5.0)
    assert (clock.seconds()["train"], clock.seconds()["evaluate"], clock.seconds()["other"]) == (
        3,
        5,
        0,
    )


def test_going_back_to_a_checkpoint_keeps_the_sum() -> None:
    time = FakeTime()
    clock = Clock(time)
    clock.resume()
    time.advance(3)
    clock.set({"train": 5.0, "other": 1.0})
    time.advance(0.5)
    clock.pause()
    assert clock.wall == 6.5
    assert clock.seconds()["other"] == 1.5
    with pytest.raises(ValueError, match="sleep"):
        clock.set({"sleep": 1.0})


def test_running_twice_is_an_error() -> None:
    clock = Clock(FakeTime())
    clock.resume()
    with pytest.raises(RuntimeError):
        clock.resume()
