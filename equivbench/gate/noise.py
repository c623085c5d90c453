"""Noise floors: how much the ratio of two sides of identical code scatters, by machine and
benchmark.

Floors of known machines are committed (``data/noise_floors.json``, made by
``tools/gate_floors.py``); elsewhere the floor is estimated from the rounds at hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

import msgspec
import numpy as np

from equivbench.gate.samples import Samples, steps

SPREAD_OF_UNKNOWN = 0.01
"""Relative spread between processes that a machine is given on top of what its rounds show, until
floors are committed for it: fresh processes lay out memory anew, which no round of one process
reveals."""


class MachineFloors(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What ``tools/gate_floors.py`` measured on one machine."""

    created: str
    commit: str | None
    rounds: int
    """Null rounds that the spreads come from."""
    spread: dict[str, float]
    """Relative standard deviation of one round, by benchmark; the ratio of R against R rounds has
    sqrt(2 / R) of it."""


FloorTable = Mapping[str, MachineFloors]


@cache
def committed_floors() -> FloorTable:
    """The table shipped with the package, by machine key."""
    data = files("equivbench.gate").joinpath("data/noise_floors.json").read_bytes()
    return msgspec.json.decode(data, type=dict[str, MachineFloors])


def noise_floor(baseline: Samples, candidate: Samples, table: FloorTable) -> float:
    """Relative standard deviation of the ratio of both sides under identical code.

    Rounds on a machine of ``table``: the committed spread over the root of the rounds. Otherwise
    the standard error that the rounds (or the differences of seeds) show themselves, and for rounds
    ``SPREAD_OF_UNKNOWN``.
    """
    pairs = steps(baseline, candidate)
    if baseline.unit == "seed":
        return (
            float(np.std(pairs, ddof=1)) / math.sqrt(len(pairs))
            if pairs is not None and len(pairs) > 1
            else 0.0
        )
    shares = [1 / len(side.values) for side in (baseline, candidate)]
    machine = table.get(baseline.context.get("machine", ""))
    if machine is not None and baseline.name in machine.spread:
        return machine.spread[baseline.name] * math.sqrt(sum(shares))
    shown = (
        _error_of_median(pairs) ** 2
        if pairs is not None
        else sum(
            _error_of_median([side.level(index) for index in side.values]) ** 2
            for side in (baseline, candidate)
        )
    )
    hidden = sum(
        side.spread**2 if side.spread else SPREAD_OF_UNKNOWN**2 * share
        for side, share in zip((baseline, candidate), shares, strict=True)
    )
    return math.sqrt(shown + hidden)


def _error_of_median(values: Sequence[float]) -> float:
    """Standard error of the median of normal values with outliers: 1.4826 of their median deviation
    is the standard deviation, and the median scatters by sqrt(pi / 2) more than the mean."""
    deviations = np.abs(np.array(values) - np.median(values))
    return math.sqrt(math.pi / 2 / len(values)) * 1.4826 * float(np.median(deviations))
