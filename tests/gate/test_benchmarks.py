"""The list of what is timed, and its samples on a clock that the test owns."""

from __future__ import annotations

import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from equivbench.gate import benchmarks as timing
from equivbench.gate.benchmarks import (
    SAMPLE,
    AbsentBenchmark,
    Benchmark,
    Workload,
    benchmarks,
    dev_trainer,
    long_enough,
    selected,
)
from equivbench.gate.protocol import Built, Hello, Refused, Sample, Took, Use
from equivbench.gate.side import SideProcess, serve
from equivbench.kernels.operations import CASES
from equivbench.registry import PAIRS


class Time:
    """A clock that only the timed call moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, costs: Iterator[float]) -> None:
        self.now = 0.0
        self.calls = 0
        self._costs = costs
        monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def call(self) -> None:
        self.calls += 1
        self.now += next(self._costs)


def forever(*costs: float) -> Iterator[float]:
    while True:
        yield from costs


def test_short_calls_are_looped(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Time(monkeypatch, forever(1e-4))
    timed = long_enough(Workload(clock.call))
    before = clock.now
    assert timed.sample() == pytest.approx(1e-4)
    assert SAMPLE <= clock.now - before <= 10 * SAMPLE


def test_the_first_slow_call_sets_no_length(monkeypatch: pytest.MonkeyPatch) -> None:
    def costs() -> Iterator[float]:
        yield 5.0
        yield from forever(1e-3)

    timed = long_enough(Workload(Time(monkeypatch, costs()).call))
    assert timed.calls >= SAMPLE / 1e-3


def test_what_is_done_before_and_after_a_sample_is_off_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Time(monkeypatch, forever(0.02))
    done: list[str] = []

    def aside(what: str) -> Any:
        def do() -> None:
            done.append(what)
            clock.now += 100.0

        return do

    timed = Workload(clock.call, 3, aside("before"), aside("after"))
    assert timed.sample() == pytest.approx(0.02)
    assert done == ["before", "after"]


def test_every_pair_every_quick_case_and_its_data_are_on_the_list() -> None:
    names = {each.name for each in benchmarks()}
    assert len(names) == len(benchmarks())
    for pair, entry in PAIRS.entries().items():
        for arm in entry.value.contestants:
            for what in ("step", "evaluation"):
                assert f"{pair} {arm.name} {what}" in names
        assert f"{pair} {arm.name} batch" in names
        assert f"{entry.value.presets['dev'].dataset} load" in names
    for case in CASES:
        assert (f"{case.name} forward torch" in names) == case.quick
    assert sum(each.control for each in benchmarks()) == 1


def test_a_plug_in_pair_is_on_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = PAIRS.entries()["forcefield/vector"]
    monkeypatch.setattr(timing, "PAIRS", SimpleNamespace(entries=lambda: {"mine/pair": entry}))
    found = [each.name for each in timing.of_pairs()]
    assert "mine/pair equivariant step" in found


def test_a_pattern_keeps_the_control() -> None:
    assert [each.name for each in selected(["list-*"])] == ["control", "list-pairs"]
    assert len(selected([])) == len(benchmarks())


@pytest.mark.parametrize(
    "name",
    [
        "control",
        "decompose 4 rotations",
        "decompose interval",
        "rotations act",
        "rotations draw",
        "gfn2-small load",
        "harmonics-l2 double_backward torch",
        "forcefield/vector augmented step",
        "forcefield/vector augmented evaluation",
        "forcefield/vector augmented batch",
    ],
)
def test_a_benchmark_measures_something_and_leaves_no_trace(name: str) -> None:
    (one,) = (each for each in benchmarks() if each.name == name)
    timed = one.build()
    assert 0 < timed.sample() < 10
    if name.startswith("forcefield/"):
        trainer = dev_trainer("forcefield/vector", "augmented")
        assert trainer.facts.step == 0
        assert not trainer.clock.is_running


def side(*made: Benchmark) -> SideProcess:
    return SideProcess(made)


def test_a_side_answers_and_a_failure_is_its_own() -> None:
    def broken() -> Workload:
        raise ValueError("no data")

    def absent() -> Workload:
        raise AbsentBenchmark("no compiler")

    def breaks_later() -> Workload:
        costs: Iterator[float] = iter(())
        return Workload(lambda: None, timer=lambda: next(costs))

    process = side(
        Benchmark("control", lambda: Workload(lambda: None, timer=lambda: 0.25), control=True),
        Benchmark("broken", broken),
        Benchmark("absent", absent),
        Benchmark("breaks later", breaks_later),
    )
    assert process.answer(Use("control")) == Built()
    assert process.answer(Sample()) == Took(0.25)
    assert process.answer(Use("broken")) == Refused("ValueError: no data")
    assert process.answer(Use("absent")) == Refused(None)
    assert process.answer(Use("breaks later")) == Built()
    assert isinstance(process.answer(Sample()), Refused)


def test_a_side_says_what_it_has_and_ends_with_its_commands() -> None:
    process = side(
        Benchmark("control", lambda: Workload(lambda: None, timer=lambda: 1.0), "7", True)
    )
    asked = (Use("control"), Sample())
    commands = io.BytesIO(b"".join(msgspec.json.encode(each) + b"\n" for each in asked))
    answers = io.BytesIO()
    serve(process, commands, answers)
    hello, *rest = answers.getvalue().splitlines()
    found = msgspec.json.decode(hello, type=Hello)
    assert [(each.name, each.version, each.control) for each in found.benchmarks] == [
        ("control", "7", True)
    ]
    assert found.environment.threads == 1
    assert [msgspec.json.decode(line)["type"] for line in rest] == ["built", "took"]
