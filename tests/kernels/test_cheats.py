"""Cheats gain nothing, or are refused by name, and leave the process as they found it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import cheating_kernels as cheats
import pytest
import torch
import toy_kernels as bad
from toy_ceilings import pretended
from toy_kernels import TOY, registered, right

from equivbench.kernels import comparing, measuring, timing
from equivbench.kernels.checking import WrongKernelError
from equivbench.kernels.comparing import BackendPlan, comparisons
from equivbench.kernels.measuring import prepare
from equivbench.kernels.process_settings import Settings
from equivbench.kernels.surroundings import attributes, unchanged
from equivbench.kernels.timing import Timer


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(measuring, "cache_bytes", lambda device: 20_000)
    monkeypatch.setattr(comparing, "measure_ceilings", lambda device, dtype: pretended())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("kernel", [cheats.replays_by_content, cheats.replays_by_what_is_near])
def test_who_remembers_results_is_timed_on_numbers_that_nobody_has_seen(kernel):
    with registered(mine=kernel):
        prepared = prepare(TOY, "forward", "mine")
        assert prepared.round(0.02) >= cheats.WORK
        prepared.verify()


@pytest.mark.parametrize("kernel", [cheats.right_where_it_was_looked_at, cheats.takes_the_answers])
def test_who_is_right_on_known_numbers_alone_is_refused_on_others(kernel):
    with registered(mine=kernel):
        prepared = prepare(TOY, "forward", "mine")
        prepared.round(0.02)
        with pytest.raises(WrongKernelError, match="output is off by"):
            prepared.verify()


def test_a_comparison_ends_with_numbers_that_nobody_has_seen():
    with registered(good=right, mine=cheats.right_where_it_was_looked_at):
        (found,) = comparisons(
            [TOY], ["mine", "good"], ["forward"], BackendPlan(rounds=2, seconds=0.01)
        )
    assert [sample.backend for sample in found.samples] == ["good"]
    assert [(one.backend, one.kind) for one in found.refusals] == [("mine", "wrong")]


def test_an_interruption_spares_nobody_the_end():
    kernels = {"mine": cheats.right_where_it_was_looked_at, "stops": bad.interrupted_later}
    with registered(**kernels):
        plan = BackendPlan(rounds=2, seconds=0.01)
        (found,) = comparisons([TOY], list(kernels), ["forward"], plan)
    assert (found.interrupted, found.samples) == (True, [])
    assert [(one.backend, one.kind) for one in found.refusals] == [("mine", "wrong")]


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (cheats.spoils_the_answers, "output is not finite"),
        (cheats.works_in_adapt, "adapt's output is not linear"),
        (cheats.works_in_restore, "restore's output is not linear"),
        (cheats.lazy_by_a_method_of_its_own, "a 'detach' of its own"),
        (cheats.sparse, "not a plain tensor"),
        (cheats.one_piece_of_memory, "output is off by"),
    ],
)
def test_a_cheat_is_refused_before_it_is_timed(kernel, said):
    with registered(mine=kernel), pytest.raises(WrongKernelError, match=said):
        prepare(TOY, "forward", "mine")


def state() -> list[object]:
    return [Settings.now(), *(one.read() for one in measuring._KEPT)]


@pytest.mark.parametrize("name", cheats.CHANGES)
def test_who_changes_the_process_is_refused_and_the_process_put_back(name):
    kernel, said = cheats.CHANGES[name]
    before = state()
    with (
        registered(mine=kernel),
        pytest.raises(WrongKernelError, match=f"it changes .*{said}"),
    ):
        prepare(TOY, "forward", "mine")
    assert state() == before
    # The next one is judged and timed as if nothing had been.
    with registered(mine=right):
        prepare(TOY, "forward", "mine").round(0.01)


def test_what_is_put_back_is_named_and_an_error_goes_first():
    class Owner:
        value = staticmethod(time.sleep)

    settings = attributes(Owner, "value")
    with pytest.raises(WrongKernelError, match=r"it changes Owner\.value"), unchanged(settings):
        Owner.value = staticmethod(time.time)  # type: ignore[assignment]
    assert Owner.value is time.sleep
    with pytest.raises(ZeroDivisionError), unchanged(settings):
        Owner.value = staticmethod(time.time)  # type: ignore[assignment]
        raise ZeroDivisionError
    assert Owner.value is time.sleep


def test_threads_of_its_own_show_in_processor_time(monkeypatch: pytest.MonkeyPatch):
    seconds, used = iter([0.0, 1.0]), iter([0.0, 1.9])
    clock = Timer(torch.device("cpu"))
    monkeypatch.setattr(timing, "perf_counter", lambda: next(seconds))
    monkeypatch.setattr(timing, "process_time", lambda: next(used))
    with pytest.raises(WrongKernelError, match=r"1\.9 processor seconds in 1 seconds on 1 thread"):
        clock.seconds(lambda: None)


@pytest.mark.parametrize("each", [0.0003, 0.004])
def test_threads_of_its_own_show_in_short_calls_taken_together(
    monkeypatch: pytest.MonkeyPatch, each: float
):
    """A tick of another thread, 4 ms in one of them, does not; two threads all the time do."""
    now, work = [0.0, 0.0], [1.0]

    def call(more: float = 0.0) -> None:
        now[0] += each
        now[1] += work[0] * each + more

    clock = Timer(torch.device("cpu"))
    monkeypatch.setattr(timing, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing, "process_time", lambda: now[1])
    clock.seconds(lambda: call(0.004))
    for _ in range(100):
        clock.seconds(call)
    work[0] = 2.9
    with pytest.raises(WrongKernelError, match="runs threads of its own"):
        for _ in range(100):
            clock.seconds(call)


def test_a_gpu_is_waited_for_whatever_stream_works(monkeypatch: pytest.MonkeyPatch):
    done: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: done.append("waited"))
    Timer(torch.device("cuda")).seconds(lambda: done.append("queued"))
    assert done == ["waited", "queued", "waited"]
