"""Noise floors: committed ones where the machine is known, estimated ones elsewhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from toy_samples import CONTEXT, noisy, rounds, seeds

from equivbench.gate.noise import SPREAD_OF_UNKNOWN, MachineFloors, committed_floors, noise_floor
from equivbench.gate.samples import steps
from equivbench.gate.verdict import centre


def test_the_shipped_table_can_be_read() -> None:
    for machine in committed_floors().values():
        assert all(0 < spread < 1 for spread in machine.spread.values())


@pytest.mark.parametrize("session", ["one", "another"])
def test_the_floor_is_the_spread_of_the_ratio(session: str) -> None:
    ratios, floors = [], []
    for seed in range(300):
        first, second = (
            rounds(noisy(1.0, 0.03, 16, 2 * seed + side), session=name)
            for side, name in enumerate(("one", session))
        )
        pairs = steps(first, second)
        ratios.append(
            math.log(centre(second) / centre(first)) if pairs is None else float(np.median(pairs))
        )
        floors.append(noise_floor(first, second, {}) ** 2 - SPREAD_OF_UNKNOWN**2 * 2 / 16)
    # 300 draws give a standard deviation to 4%; the median deviation of 16 values is biased by some
    # 5% on top.
    assert np.sqrt(np.mean(floors)) == pytest.approx(np.std(ratios), rel=0.2)


def test_more_rounds_lower_a_committed_floor() -> None:
    table = {
        CONTEXT["machine"]: MachineFloors(created="", commit=None, rounds=9, spread={"work": 0.02})
    }
    few, many = ((rounds([1.0] * count),) * 2 for count in (4, 16))
    assert noise_floor(*few, table) == pytest.approx(2 * noise_floor(*many, table))
    assert noise_floor(*many, table) == pytest.approx(0.02 * np.sqrt(2 / 16))


def test_rounds_of_one_process_are_given_the_spread_between_processes() -> None:
    many = rounds([1.0] * 1000, spread=0.015)
    assert noise_floor(many, many, {}) == pytest.approx(0.015 * np.sqrt(2))


def test_seeds_that_agree_have_no_floor() -> None:
    assert noise_floor(seeds([1.0, 2.0]), seeds([1.0, 2.0]), {}) == 0.0
    assert noise_floor(seeds([1.0]), seeds([2.0]), {}) == 0.0
