"""A pretended machine, whose bandwidth at every size and whose arithmetic are known."""

from __future__ import annotations

from collections.abc import Mapping

from equivbench.kernels.ceilings import BandwidthCurve, Ceilings

SPEED, OPERATIONS = 1e12, 4e11
"""Bytes and operations a second that no kernel of a test comes near."""


def flat(rate: float) -> BandwidthCurve:
    """``rate`` at every size."""
    return BandwidthCurve.through({2**15: rate, 2**28: rate})


def pretended(
    rate: float = SPEED,
    operations: float = OPERATIONS,
    *,
    reading: BandwidthCurve | None = None,
    writing: BandwidthCurve | None = None,
    copying: BandwidthCurve | None = None,
    levels: Mapping[int, int] | None = None,
) -> Ceilings:
    """Flat where no curve is given, with caches of 1 and 32 MiB."""
    return Ceilings(
        reading or flat(rate),
        writing or flat(rate),
        copying or flat(rate),
        operations,
        {2: 2**20, 3: 2**25} if levels is None else levels,
    )
