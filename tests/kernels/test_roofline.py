"""A call against the ceilings of a pretended machine: closed forms, what binds, and a time that
cannot be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_ceilings import flat, pretended

from equivbench.kernels.ceilings import BandwidthCurve, Ceilings
from equivbench.kernels.operands import Footprint
from equivbench.kernels.operations import Costs
from equivbench.kernels.roofline import InstrumentError, MeasuredRoof, roofline
from equivbench.records.peaks import Peak
from equivbench.records.roofline import Roofline, beyond_peak, roofline_problems

MIB = 2**20
NEAR, FAR = 100e9, 10e9
STEPPED = BandwidthCurve((1.0, 32 * MIB, 32 * MIB + 1, 2**40), (NEAR, NEAR, FAR, FAR))
"""As fast as the cache of the third level as far as it goes, then as memory."""
MACHINE = pretended(operations=1e12, reading=STEPPED, writing=STEPPED, copying=STEPPED)


def found(cost: Costs, footprint: Footprint, seconds: float = 1.0) -> Roofline:
    one = roofline(cost, footprint, MACHINE, seconds)
    problems = roofline_problems(
        one, moved=cost.bytes_fused, operations=cost.operations, seconds=seconds
    )
    assert list(problems) == []
    return one


def test_arguments_come_from_memory_and_results_stay_in_a_cache() -> None:
    cost = Costs(12 * MIB, 4 * MIB, 20 * MIB, 1.0)
    one = found(cost, Footprint(fresh=10 * MIB, shared=MIB, rotation=100 * MIB))
    # Of what is read 2 MiB are read again or shared; a call's own bytes are 15 MiB.
    assert [(each.name, each.amount, each.size) for each in one.bounds] == [
        ("memory bandwidth", 10 * MIB, 100 * MIB),
        ("L3 cache bandwidth", 6 * MIB, 15 * MIB),
        ("arithmetic", 1.0, None),
    ]
    assert one.binding == "memory bandwidth"
    assert one.fraction == pytest.approx(10 * MIB / FAR)
    assert one.caches == {"L2": MIB, "L3": 32 * MIB}


def test_bytes_of_one_level_share_it() -> None:
    cost = Costs(100 * MIB, 60 * MIB, 200 * MIB, 1.0)
    one = found(cost, Footprint(fresh=90 * MIB, shared=0, rotation=180 * MIB))
    assert [each.name for each in one.bounds] == ["memory bandwidth", "arithmetic"]
    assert one.bounds[0].size == 150 * MIB, "the smaller of both sizes, which is no slower"
    assert one.fraction == pytest.approx(160 * MIB / FAR)


def test_a_rotation_that_fits_a_cache_is_held_against_that_cache() -> None:
    cost = Costs(2 * MIB, 2 * MIB, 4 * MIB, 1.0)
    one = found(cost, Footprint(fresh=2 * MIB, shared=0, rotation=20 * MIB))
    assert one.binding == "L3 cache bandwidth"
    assert one.fraction == pytest.approx(4 * MIB / NEAR)


def test_arithmetic_binds_where_it_takes_longest() -> None:
    cost = Costs(MIB, MIB, 4 * MIB, 5e11)
    one = found(cost, Footprint(MIB, 0, 100 * MIB))
    assert one.binding == "arithmetic"
    assert one.fraction == pytest.approx(0.5)


def test_a_search_that_writes_nothing_known_is_bound_by_what_it_reads() -> None:
    one = found(Costs(MIB, 0.0, MIB, 0.0), Footprint(MIB, 0, 100 * MIB))
    assert [each.name for each in one.bounds] == ["memory bandwidth"]


def test_where_caches_are_not_told_the_bandwidth_has_no_level() -> None:
    unknown = pretended(operations=1e15, levels={})
    one = roofline(Costs(MIB, MIB, MIB, 1.0), Footprint(MIB, 0, 100 * MIB), unknown, 1.0)
    assert (one.binding, one.caches) == ("bandwidth", {})
    assert one.bounds[0].amount == 2 * MIB


@given(
    read=st.floats(1, 1e9),
    written=st.just(0.0) | st.floats(1, 1e9),
    operations=st.just(0.0) | st.floats(1, 1e12),
    fresh=st.integers(0, 10**9),
    slots=st.integers(2, 4096),
)
def test_every_byte_is_counted_once_and_no_bound_is_above_the_one_that_binds(
    read: float, written: float, operations: float, fresh: int, slots: int
) -> None:
    cost = Costs(read, written, read + written, operations)
    one = found(cost, Footprint(fresh, 8, fresh * slots + 8), seconds=1e3)
    assert max(each.seconds for each in one.bounds) == one.bound.seconds


# --- what cannot be


COST, FOOTPRINT = Costs(MIB, MIB, 4 * MIB, 1.0), Footprint(MIB, 0, 100 * MIB)
LEAST = MIB / FAR
"""Seconds that this call takes at least on the pretended machine."""


class Measuring:
    """Gives the ``ceilings`` one after the other, and counts."""

    def __init__(self, *ceilings: Ceilings) -> None:
        self._left = list(ceilings)
        self.count = 0

    def __call__(self) -> Ceilings:
        self.count += 1
        return self._left.pop(0)


def test_ceilings_are_measured_once() -> None:
    measuring = Measuring(MACHINE)
    roof = MeasuredRoof(measuring)
    roof.ready()
    assert [roof.over(COST, FOOTPRINT, n * LEAST).fraction for n in (1.25, 2, 4)] == pytest.approx(
        [0.8, 0.5, 0.25]
    )
    assert measuring.count == 1


def test_a_fraction_above_one_is_refused_and_names_the_instrument() -> None:
    measuring = Measuring(MACHINE, MACHINE)
    roof = MeasuredRoof(measuring)
    for _ in range(2):
        with pytest.raises(InstrumentError, match="memory bandwidth allows") as error:
            roof.over(COST, FOOTPRINT, 0.9 * LEAST)
    assert "an instrument is at fault" in str(error.value)
    assert measuring.count == 2


def test_ceilings_that_were_measured_beside_other_work_are_measured_again() -> None:
    low = BandwidthCurve(STEPPED.sizes, (FAR / 4,) * 4)
    slowed = pretended(operations=1e12, reading=low, writing=low, copying=low)
    roof = MeasuredRoof(Measuring(slowed, MACHINE))
    assert roof.over(COST, FOOTPRINT, 2 * LEAST).fraction == pytest.approx(0.5)
    assert roof.ceilings.reading.at(100 * MIB) == pytest.approx(FAR)


def test_a_device_has_not_shown_more_than_its_data_sheet() -> None:
    peak = Peak({"64": 1e12, "32": 2e12, "16": 4e12}, 20e9)
    assert list(beyond_peak(found(COST, FOOTPRINT), peak, "32")) == []
    wrong = pretended(operations=5e12, reading=flat(30e9))
    far = roofline(COST, Footprint(MIB, 0, 300 * MIB), wrong, 1.0)
    assert [each.partition(" of ")[0] for each in beyond_peak(far, peak, "32")] == [
        "memory bandwidth",
        "L3 cache bandwidth",
        "arithmetic",
    ]
    # Between the caches and eight times their size both serve.
    near = roofline(COST, Footprint(MIB, 0, 40 * MIB), wrong, 1.0)
    assert not any(each.startswith("memory") for each in beyond_peak(near, peak, "32"))
