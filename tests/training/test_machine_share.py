"""Time in which a process does not run is not trained time, and the record says what share of its
machine the run got."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_training import FakeTime

from equivbench.records.schema import MachineShare
from equivbench.training import machine_share
from equivbench.training.clock import Clock
from equivbench.training.machine_share import (
    MachineMeter,
    Stalls,
    ThreadTime,
    held_by_others,
)

SECONDS = st.floats(0.0, 10.0)


@given(st.lists(st.tuples(SECONDS, SECONDS), max_size=20))
def test_stalled_seconds_are_kept_out_of_every_other_part(
    readings: list[tuple[float, float]],
) -> None:
    now = FakeTime()
    reported: Iterator[float] = iter([0.0])
    clock = Clock(now, stalled=lambda: next(reported, 0.0))
    ran = stalled = 0.0
    with clock.running():
        for seconds, missing in readings:
            with clock.part("train"):
                now.advance(seconds + missing)
                reported = iter([missing])
            ran, stalled = ran + seconds, stalled + missing
    assert clock.wall == pytest.approx(ran + stalled)
    # A stall shorter than what is worth a question may be reported with a later reading.
    assert clock.seconds()["stalled"] == pytest.approx(stalled, abs=2e-3 * len(readings) + 1e-9)
    assert clock.spent == pytest.approx(ran, abs=2e-3 * len(readings) + 1e-9)


STOPPED = """
import sys, time
from equivbench.training.clock import Clock
from equivbench.training.machine_share import Stalls
clock = Clock(stalled=Stalls().taken)
with clock.running():
    print("go", flush=True)
    start = time.perf_counter()
    while time.perf_counter() - start < 3.0:
        with clock.part("train"):
            sum(range(20_000))
seconds = clock.seconds()
print(seconds["train"], seconds["stalled"])
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no SIGSTOP on this system")
def test_a_process_that_was_stopped_did_not_train() -> None:
    process = subprocess.Popen([sys.executable, "-c", STOPPED], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    process.send_signal(signal.SIGCONT)
    train, stalled = map(float, process.communicate()[0].split())
    assert 1.3 < stalled < 3.0
    assert train + stalled == pytest.approx(3.0, abs=0.5)
    assert train < 1.8


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="Linux tells these times")
def test_threads_that_wait_for_a_core_are_seen() -> None:
    core = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        os.sched_setaffinity(hog.pid, {core})
        os.sched_setaffinity(0, {core})
        stalls, start = Stalls(), time.perf_counter()
        while time.perf_counter() - start < 1.0:
            sum(range(10_000))
        elapsed = time.perf_counter() - start
        stalled = stalls.taken()
    finally:
        os.sched_setaffinity(0, before)
        hog.kill()
        hog.wait()
    # Two processes share the core, others of the machine may come to it.
    assert 0.2 * elapsed < stalled < elapsed


@st.composite
def schedules(draw: st.DrawFn) -> tuple[list[ThreadTime], int, bool, int]:
    """(threads, cores, whether another process ever ran, the longest wait) of a machine that leaves
    no core idle while somebody waits."""
    cores, own = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    ran, waited, disturbed = [0] * own, [0] * own, False
    for _ in range(draw(st.integers(1, 30))):
        ready = [place for place in range(own) if draw(st.booleans())]
        held = draw(st.integers(0, cores))  # of the cores, by other processes
        disturbed = disturbed or held > 0
        order = draw(st.permutations(ready))
        for place in order[: cores - held]:
            ran[place] += 1
        for place in order[cores - held :]:
            waited[place] += 1
    threads = [ThreadTime(*each) for each in zip(ran, waited, strict=True)]
    return threads, cores, disturbed, max(waited)


@given(schedules())
def test_threads_that_wait_for_each_other_are_not_held_up_by_others(
    schedule: tuple[list[ThreadTime], int, bool, int],
) -> None:
    threads, cores, disturbed, longest = schedule
    found = held_by_others(threads, cores)
    assert 0 <= found <= longest
    if not disturbed:
        assert found == 0
    if len(threads) <= cores:
        # They always fit, so that whatever one waited for was held by others.
        assert found == longest


def test_two_threads_on_one_core_wait_for_each_other_and_a_third_process_is_seen() -> None:
    own = [ThreadTime(ran=500, waited=500), ThreadTime(ran=500, waited=500)]
    assert held_by_others(own, 1) == 0
    # A computing thread and one that passes tensors on, beside a process with a third of the core.
    shared = [ThreadTime(ran=500, waited=450), ThreadTime(ran=150, waited=600)]
    assert held_by_others(shared, 1) == 300
    assert held_by_others([], 2) == 0


def test_a_meter_counts_what_it_is_given_and_goes_on_after_a_restart() -> None:
    meter = MachineMeter(threads=1)
    with meter.metered():
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
    for seconds in (0.1, 0.1, 0.1, 0.1, 0.4):
        meter.saw_step(seconds)
    share = meter.share(0.25)
    assert isinstance(share, MachineShare)
    assert 0.0 < share.cpu_share < 1.5
    assert share.stalled_seconds == 0.25
    assert share.p90_over_p10 == pytest.approx(2.8)
    later = MachineMeter(threads=1)
    later.restore(meter.facts)
    assert later.counted == meter.counted
    assert later.load == meter.load


def busy(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_threads_that_spin_for_a_moment_after_each_turn_do_no_work_aside() -> None:
    meter = MachineMeter(threads=10)
    turns, spin = 16, 0.2
    meter.restore({"wall": 10.0, "cpu": 100.0, "paused_cpu": turns * spin * meter.threads})
    assert meter.work_aside(on_cpu=True) is None
    meter.paused_cpu = 100.0
    assert meter.work_aside(on_cpu=True) is not None


def test_work_while_the_clock_is_paused_is_found_and_survives_a_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine_share, "_WORTH_SAYING", 0.05)
    meter = MachineMeter(threads=1)
    for _ in range(2):
        with meter.metered():
            busy(0.1)
        time.sleep(0.2)
    assert meter.work_aside(on_cpu=True) is None
    busy(0.3)
    with meter.metered():
        pass
    said = meter.work_aside(on_cpu=True)
    assert said is not None
    assert "while its clock was paused" in said
    later = MachineMeter(threads=1)
    later.restore(meter.facts)
    assert later.work_aside(on_cpu=True) == said


@pytest.mark.parametrize(
    ("used", "on_cpu", "found"), [(22.0, True, False), (40.0, True, True), (40.0, False, False)]
)
def test_more_cores_than_the_run_was_given_are_found(
    used: float, on_cpu: bool, found: bool
) -> None:
    meter = MachineMeter(threads=2)
    meter.restore({"cpu": used, "wall": 10.0})
    said = meter.work_aside(on_cpu)
    assert (said is not None) is found
    assert said is None or "used 4.0 cores and the run was given 2" in said


def watching() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name == "equivbench-stalls"}


def test_the_watching_thread_ends_with_the_process_and_with_its_owner() -> None:
    others = watching()
    stalls = Stalls()
    (thread,) = watching() - others
    assert thread.daemon
    files = stalls._files
    assert files or not os.path.exists("/proc/self/schedstat")
    opened = list(files.values())
    del stalls
    gc.collect()
    assert not files
    for descriptor in opened:
        with pytest.raises(OSError):
            os.pread(descriptor, 1, 0)
    thread.join(5)
    assert not thread.is_alive()
