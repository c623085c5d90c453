"""Calls recorded once and replayed, by a pretended recorder on a CPU: what a replay computes is
checked, and what fits into no graph says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from toy_kernels import TOY, registered, right

from equivbench.kernels import measuring
from equivbench.kernels.comparing import BackendPlan, comparisons
from equivbench.kernels.graph_replay import CallsToRecord
from equivbench.kernels.measuring import Prepared, prepare
from equivbench.kernels.problem import Results
from equivbench.kernels.timing import Timer
from equivbench.records.schema import NotMeasured
from equivbench.specs import MODES, Mode


def copied_into(results: Results, fresh: Results) -> None:
    for name, one in results.items():
        if one is not None and one.numel():
            one.detach().copy_(fresh[name].detach())


def honest(work: CallsToRecord) -> tuple[Any, Results]:
    """As a graph does: the same calls on what lies in the same memory now."""
    results = work()
    return lambda: copied_into(results, work()), results


def stale(work: CallsToRecord) -> tuple[Any, Results]:
    """Replays nothing."""
    return lambda: None, work()


def of_the_recording(work: CallsToRecord) -> tuple[Any, Results]:
    """Gives again what was computed while it was recorded."""
    results = work()
    kept = {name: None if one is None else one.detach().clone() for name, one in results.items()}
    return lambda: copied_into(results, kept), results


class StandingClock(Timer):
    """Does the work and says that it took no time."""

    def seconds(self, work: Callable[[], object]) -> float:
        work()
        return 0.0


def refusing(work: CallsToRecord) -> tuple[Any, Results]:
    raise RuntimeError("operation not permitted when stream is capturing\nat once")


@pytest.fixture(autouse=True)
def small_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few slots of the toy pass it."""
    monkeypatch.setattr(measuring, "cache_bytes", lambda device: 20_000)


@pytest.fixture(params=MODES)
def prepared(request: pytest.FixtureRequest) -> Any:
    mode: Mode = request.param
    with registered(mine=right):
        yield prepare(TOY, mode, "mine")


def test_replays_are_timed_in_rounds(prepared: Prepared) -> None:
    rounds = prepared.replayed(3, 0.02, honest)
    assert len(rounds) == 3
    assert all(0 < seconds < 1 for seconds in rounds)


@pytest.mark.parametrize("recorder", [stale, of_the_recording])
def test_replays_that_compute_nothing_have_no_times(prepared: Prepared, recorder: Any) -> None:
    found = prepared.replayed(3, 0.02, recorder)
    assert isinstance(found, NotMeasured)
    assert "is wrong and not timed" in found.reason


def test_a_clock_that_stands_still_ends_the_replays(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "_clock", StandingClock(torch.device("cpu")))
    found = prepared.replayed(1, 0.02, honest)
    assert isinstance(found, NotMeasured)
    assert "calls take no time by the clock; it is broken" in found.reason


def test_what_fits_into_no_graph_says_so_in_one_line(prepared: Prepared) -> None:
    found = prepared.replayed(3, 0.02, refusing)
    assert isinstance(found, NotMeasured)
    assert found.reason.startswith("no times from a CUDA graph: mine on toy")
    assert found.reason.endswith("RuntimeError: operation not permitted when stream is capturing")
    # The kernel itself is as right and as fast as before.
    assert prepared.round(0.02) > 0


def test_a_cpu_has_no_graphs() -> None:
    plan = BackendPlan(rounds=2, seconds=0.01, device=torch.device("cpu"))
    with registered(mine=right):
        (found,) = comparisons([TOY], ["mine"], ["forward"], plan)
    (sample,) = found.samples
    assert sample.graph_rounds == []
    assert sample.graph_reason is None
