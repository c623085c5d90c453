"""An honest run may be slow at its start, in its middle or at its end: it is marked where that
matters and never refused."""

from __future__ import annotations

import copy
import json
from typing import Any

import msgspec
import numpy as np
import pytest
from forgeries import REFUSED
from good_results import good_files
from hypothesis import given
from hypothesis import strategies as st

from equivbench.records.disturbed import disturbance
from equivbench.records.plausibility import problems, remarks
from equivbench.records.schema import RunRecord
from equivbench.schedule import cooldown_begins, is_traced

GOOD = json.loads(good_files()[2].read_bytes())
Slow = tuple[float, float, float]
"""From and until which part of the budget steps are slow, and how many times."""


class Course:
    """Steps of a run with one slow part, and what its record says of them."""

    def __init__(self, step: float, limit: float, slow: Slow) -> None:
        self.step, self.limit, self.slow = step, limit, slow
        self.traced: list[tuple[int, float]] = []
        self.rungs: list[tuple[float, int, float]] = []
        self.branches = 0.0

    def run(self, rungs: list[float]) -> tuple[int, float]:
        steps, spent, ahead = 0, 0.0, sorted(rungs)
        while spent < self.limit:
            trunk = spent < cooldown_begins(self.limit)
            steps, spent = steps + 1, spent + self._seconds(spent)
            if trunk and is_traced(steps):
                self.traced.append((steps, spent))
            while ahead and spent >= cooldown_begins(ahead[0]):
                self._branch(steps, spent, ahead.pop(0))
        return steps, spent

    def _branch(self, steps: int, spent: float, budget: float) -> None:
        began = spent
        while spent < budget:
            steps, spent = steps + 1, spent + self._seconds(spent)
        self.rungs.append((budget, steps, spent))
        self.branches += spent - began

    def _seconds(self, spent: float) -> float:
        begins, ends, factor = self.slow
        # A step is as slow as the moment in which it begins.
        return self.step * (factor if begins <= spent / self.limit < ends else 1.0)


def honest(slow: Slow) -> RunRecord:
    """The record of a run that was slow for a part of its budget."""
    plain: dict[str, Any] = copy.deepcopy(GOOD)
    limit, batch = plain["budget"]["limit"], plain["recipe"]["batch_size"]
    course = Course(plain["throughput"]["step_seconds"]["p50"], limit, slow)
    steps, spent = course.run([rung["budget"] for rung in plain["rungs"][:-1]])
    point, last = plain["trace"][-1], plain["rungs"][-1]
    plain["trace"] = [
        {**point, "step": step, "samples": step * batch, "train_seconds": seconds}
        for step, seconds in course.traced
    ]
    last.update(step=steps, samples=steps * batch, train_seconds=spent)
    for rung, (_, step, seconds) in zip(plain["rungs"][:-1], course.rungs, strict=True):
        rung.update(step=step, samples=step * batch, train_seconds=seconds)
    plain.update(
        steps=steps,
        samples=steps * batch,
        epochs=steps * batch / plain["dataset"]["sizes"]["train"],
    )
    plain["budget"].update(spent=spent, overshoot=spent - limit)
    clock = plain["clock"]
    clock.update(data=0.1 * spent, train=0.9 * spent, rungs=course.branches)
    clock["wall"] = sum(value for name, value in clock.items() if name != "wall")
    return msgspec.convert(plain, RunRecord)


SLOW = st.tuples(
    st.sampled_from((0.0, 0.0, 0.2, 0.39, 0.6, 0.79, 0.95)),
    st.floats(0.01, 0.9),
    st.floats(1.0, 3000.0),
).map(lambda slow: (slow[0], slow[0] + slow[1], slow[2]))


@given(SLOW)
def test_no_slow_run_is_refused(slow: Slow) -> None:
    assert problems(honest(slow)) == []


@pytest.mark.parametrize(
    ("slow", "words"),
    [
        ((0.0, 0.79, 100.0), "its steps came unevenly"),
        ((0.0, 0.5, 10.0), "its steps came unevenly"),
        ((0.3, 0.7, 50.0), "its steps came unevenly"),
        ((0.99, 1.0, 300.0), "a step took long"),
    ],
    ids=["slow start", "half slow", "slow in the middle", "one long step at the end"],
)
def test_a_slow_run_is_called_disturbed(slow: Slow, words: str) -> None:
    record = honest(slow)
    found = disturbance(record)
    assert found is not None
    assert words in found
    assert any(words in remark for remark in remarks(record))


def test_an_even_run_is_not() -> None:
    assert disturbance(honest((0.0, 0.0, 1.0))) is None
    assert disturbance(honest((0.0, 0.05, 3.0))) is None


@pytest.mark.parametrize("begins", np.linspace(0, 0.9, 4).tolist())
def test_a_slow_run_excuses_no_other_forgery(begins: float) -> None:
    """What has nothing to do with its pace is refused as ever."""
    record = msgspec.to_builtins(honest((begins, begins + 0.4, 40.0)))
    for name in ("no first trace point", "a rung less", "weak baselines"):
        plain = copy.deepcopy(record)
        REFUSED[name](plain)
        assert problems(msgspec.convert(plain, RunRecord)), name
