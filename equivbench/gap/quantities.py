"""How the gap's numbers are given: a value with its interval, or the bound where the curves do not
reach far enough."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

from equivbench.gap.curves import Censored
from equivbench.gap.resampling import Band


@dataclass(frozen=True)
class Quantity:
    """``value`` with the 95% interval ``low`` to ``high``.

    ``censored`` says that the true value lies ``above`` or ``below``, and ``value`` is then the
    bound (None where there is not even a bound, as for the loss of a diverged arm). A None in
    ``low`` or ``high`` is an end that the data leave open. All None: not measured; the gap's
    ``reasons`` say why.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    censored: Censored = None

    def map(self, function: Callable[[float], float], *, falling: bool = False) -> Quantity:
        """The quantity under a monotone ``function``; ``falling`` turns the interval and the
        censoring round."""
        value, low, high = (
            None if each is None else function(each) for each in (self.value, self.low, self.high)
        )
        if not falling:
            return Quantity(value, low, high, self.censored)
        turned: dict[Censored, Censored] = {"above": "below", "below": "above", None: None}
        return Quantity(value, high, low, turned[self.censored])


@dataclass(frozen=True)
class Timed:
    """A quantity that depends on time: at steady state, and with the compile seconds of both arms
    counted."""

    steady: Quantity
    all_in: Quantity


UNKNOWN = Quantity()
LARGEST_LOG = math.log(sys.float_info.max)
UNTIMED = Timed(UNKNOWN, UNKNOWN)


def exponential(band: Band) -> Quantity:
    """The quantity whose logarithm ``band`` (one point) estimates; an infinite one, of diverged
    seeds, has no bound.

    An end of the interval that no float can hold is open: seeds of 1e-300 and 1e300 must not stop
    everybody's tables.
    """
    mid = float(band.mid[0])
    if math.isnan(mid):
        return UNKNOWN
    censored: Censored = None if abs(mid) < LARGEST_LOG else ("above" if mid > 0 else "below")
    ends = (float(each[0]) for each in (band.mid, band.low, band.high))
    value, low, high = (math.exp(end) if abs(end) < LARGEST_LOG else None for end in ends)
    return Quantity(value, low, high, censored)


def plain(band: Band) -> Quantity:
    """The quantity that ``band`` (one point) estimates; ends that are infinite are open."""
    value, low, high = (
        float(each[0]) if math.isfinite(each[0]) else None
        for each in (band.mid, band.low, band.high)
    )
    return Quantity(value, low, high)
