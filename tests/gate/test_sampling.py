"""Samples of timings, on a clock that the test owns."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from equivbench.gate import benchmarks
from equivbench.gate.benchmarks import (
    BENCHMARKS,
    FEWEST,
    SAMPLE,
    STEPS,
    AbsentBenchmark,
    Benchmark,
    Round,
    least_of_each,
    looped,
)
from equivbench.gate.worker import PASSES, measure, selected


class Time:
    """A clock that only the timed call moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, costs: Iterator[float]) -> None:
        self.now = 0.0
        self.calls = 0
        self._costs = costs
        monkeypatch.setattr(benchmarks.time, "perf_counter", lambda: self.now)  # type: ignore[attr-defined]

    def call(self) -> None:
        self.calls += 1
        self.now += next(self._costs)


def forever(*costs: float) -> Iterator[float]:
    while True:
        yield from costs


def test_short_calls_are_looped_and_the_least_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Time(monkeypatch, forever(1e-4))
    run = looped(clock.call)
    assert run(0.2) == pytest.approx(1e-4)
    assert clock.now >= 0.2
    assert clock.calls >= FEWEST * SAMPLE / 1e-4


def test_the_first_slow_call_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def costs() -> Iterator[float]:
        yield 5.0
        yield from forever(0.02, 0.03, 0.02)

    run = looped(Time(monkeypatch, costs()).call)
    assert run(0.1) == pytest.approx(0.02)


def test_long_calls_are_still_sampled_more_than_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Time(monkeypatch, forever(3.0))
    run = looped(clock.call)
    before = clock.calls
    run(0.1)
    assert clock.calls - before == FEWEST


def test_replayed_steps_are_compared_each_with_itself() -> None:
    own = [0.01 * (step + 1) for step in range(STEPS)]
    slow = iter([3, 0, 5] * 100)

    def replay(seconds: float) -> list[float]:
        at = next(slow)
        times: list[float] = []
        while sum(times) < seconds:
            step = len(times)
            times.append((own[step] if step < STEPS else 1.0) * (10 if step == at else 1))
        return times

    assert least_of_each(replay, 2.0) == pytest.approx(math.fsum(own) / STEPS)


def bench(name: str, run: Round | Exception, **more: bool) -> Benchmark:
    def build() -> Round:
        if isinstance(run, Exception):
            raise run
        return run

    return Benchmark(name, build, **more)


def test_a_round_is_the_least_of_its_passes_and_a_failure_is_its_own() -> None:
    times = iter([3.0, *[2.5] * (PASSES - 2), 2.0])

    def broken(seconds: float) -> float:
        raise RuntimeError("no result")

    lines = measure(
        [
            bench("control", lambda seconds: next(times), control=True),
            bench("never built", ValueError("no data")),
            bench("broken", broken),
            bench("absent", AbsentBenchmark("no compiler")),
        ],
        seconds=1.0,
    )
    assert [(each.benchmark, each.seconds, each.problem) for each in lines] == [
        ("control", 2.0, None),
        ("never built", None, "ValueError: no data"),
        ("broken", None, "RuntimeError: no result"),
    ]


def test_names_are_unique_and_one_is_the_control() -> None:
    assert len({each.name for each in BENCHMARKS}) == len(BENCHMARKS) >= 10
    assert sum(each.control for each in BENCHMARKS) == 1


def test_a_pattern_keeps_the_control() -> None:
    assert [each.name for each in selected(["list-*"])] == ["control", "list-pairs"]
    assert len(selected([])) == len(BENCHMARKS)


def test_the_control_measures_something() -> None:
    (control,) = (each for each in BENCHMARKS if each.control)
    assert 0 < control.build()(0.01) < 10
