"""What a device does at most: curves that hold between the measured sizes, a pretended machine with
closed forms, and the instrument itself on this one."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_ceilings import flat, pretended

from equivbench.errors import FailedError
from equivbench.kernels.ceilings import BandwidthCurve, measure_ceilings
from equivbench.kernels.timing import Timer

CPU = torch.device("cpu")
MEASURED = st.dictionaries(
    st.integers(10, 30).map(lambda power: 2**power), st.floats(1e8, 1e13), min_size=1, max_size=12
)


def test_between_two_sizes_the_curve_is_a_power_law() -> None:
    curve = BandwidthCurve.through({2**10: 8e9, 2**20: 2e9})
    assert curve.at(2**10) == pytest.approx(8e9)
    assert curve.at(2**15) == pytest.approx(4e9)
    assert curve.at(2**20) == pytest.approx(2e9)
    assert curve.at(1) == pytest.approx(8e9)
    assert curve.at(2**40) == pytest.approx(2e9)


def test_what_is_nearer_is_no_slower() -> None:
    # The small size was measured slower for what a call costs beside the bytes.
    curve = BandwidthCurve.through({2**10: 1e9, 2**15: 6e9, 2**20: 2e9})
    assert curve.rates == (6e9, 6e9, 2e9)


@given(measured=MEASURED, sizes=st.lists(st.floats(1, 2**32), min_size=2, max_size=5))
def test_every_curve_falls_with_the_size_and_is_above_what_was_measured(
    measured: dict[int, float], sizes: list[float]
) -> None:
    curve = BandwidthCurve.through(measured)
    rates = [curve.at(size) for size in sorted(sizes)]
    assert all(far <= near * (1 + 1e-12) for near, far in itertools.pairwise(rates))
    assert all(curve.at(size) >= rate * (1 - 1e-12) for size, rate in measured.items())


@given(one=MEASURED, other=MEASURED)
def test_the_best_of_two_curves_is_below_neither(
    one: dict[int, float], other: dict[int, float]
) -> None:
    first, second = BandwidthCurve.through(one), BandwidthCurve.through(other)
    best = first.best(second)
    for size in one:
        least = max(first.at(size), second.at(size))
        assert best.at(size) == pytest.approx(least, rel=1e-9)


def test_reading_and_writing_take_turns_or_go_at_once_whichever_is_faster() -> None:
    in_turn = pretended(reading=flat(4e9), writing=flat(2e9), copying=flat(1e9))
    assert in_turn.seconds(4e9, 2e9, 1e6) == pytest.approx(2.0)
    at_once = pretended(reading=flat(4e9), writing=flat(2e9), copying=flat(4e9))
    # 2e9 bytes each way as a copy are a second, the other 2e9 are read in half a second.
    assert at_once.seconds(4e9, 2e9, 1e6) == pytest.approx(1.5)
    assert at_once.seconds(0.0, 2e9, 1e6) == pytest.approx(1.0)


class KnownClock(Timer):
    """Says that each call took ``seconds``, and takes no time itself."""

    def __init__(self, seconds: float) -> None:
        super().__init__(CPU)
        self._seconds = seconds

    def seconds(self, work: Callable[[], object]) -> float:
        return self._seconds


def test_rates_are_bytes_and_operations_over_the_least_time() -> None:
    found = measure_ceilings(CPU, torch.float32, clock=KnownClock(0.5), largest=2**17)
    assert found.reading.sizes == (2**15, 2**16, 2**17)
    # The largest size is the fastest where every pass takes as long.
    for curve in (found.reading, found.writing, found.copying):
        assert curve.rates == (2**17 / 0.5,) * 3
    assert found.copy == 2**17 / 0.5
    # Of the products and convolutions, which all take as long here, the largest.
    assert found.operations == 2 * 96**2 * 3**3 * 24**3 / 0.5
    assert found.tf32 is None


def test_a_clock_that_stands_still_is_said() -> None:
    with pytest.raises(FailedError, match="it is broken"):
        measure_ceilings(CPU, torch.float32, clock=KnownClock(0.0), largest=2**15)


def test_this_machine_has_ceilings() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # Its arithmetic is measured in float32 too.
        found = measure_ceilings(CPU, torch.bfloat16, largest=2**22)
    finally:
        torch.set_num_threads(threads)
    # A processor of this century, and no machine there is.
    for rate in (found.copy, found.reading.at(2**22), found.writing.at(2**22)):
        assert 1e8 < rate < 1e13
    assert 1e8 < found.operations < 1e13
