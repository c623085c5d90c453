"""How fast a call of a kernel could be at most, by what its device was seen to do, and how near to
that it was. Imports no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import msgspec

from equivbench.records.peaks import CACHE_FACTOR, Peak, Width

ARITHMETIC = "arithmetic"
"""The bound by useful operations."""
BANDWIDTH = "bandwidth"
"""What the names of all others end with."""
_BANDWIDTHS = re.compile(rf"((memory|L\d cache) )?{BANDWIDTH}")
ROUNDING = 1e-9
"""Relative: a few divisions, products and sums in float64."""
CEILING_SLACK = 1.1
"""A device may be timed a little above its data sheet: boost clocks, and timers."""


class Bound(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One way in which a call cannot be faster."""

    name: str
    """``memory bandwidth``, ``L3 cache bandwidth`` (and so on), ``bandwidth`` where the system does
    not tell its caches, or ``arithmetic``."""
    amount: float
    """Bytes to move, or operations to do, in one call."""
    rate: float
    """Of these a second, as measured in this process on as many threads: for bytes at ``size`` and
    in this mixture of reading and writing, for operations in the fastest of some matrix
    products, or a convolution, of this dtype."""
    size: float | None = None
    """Bytes that are passed through again and again, which decide where they come from; null for
    operations."""

    @property
    def seconds(self) -> float:
        """The least that a call takes by this bound alone."""
        return self.amount / self.rate


class Roofline(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The bounds of a call. Bytes of one level of the memory share it, and their times add up;
    different levels, and arithmetic, can work at once, so the longest time binds."""

    bytes_read: float
    """Of the bytes that any implementation must move; ``bytes_written`` are the others."""
    bytes_written: float
    bounds: list[Bound]
    binding: str
    """The name of the bound with the most seconds."""
    fraction: float
    """These seconds over those of the least round: 1 is all that the device was seen to do. Above 1
    an instrument is at fault, and there is no sample."""
    caches: dict[str, int] = {}
    """Bytes of each level that the threads can fill together (``L2``, ``L3``), by which the bounds
    are named; empty where the system does not tell."""
    tf32: bool | None = None
    """Whether matrix products could use TF32; null on a CPU."""

    @property
    def bound(self) -> Bound:
        """The one that binds."""
        return max(self.bounds, key=lambda one: one.seconds)


def roofline_problems(
    roofline: Roofline, *, moved: float, operations: float, seconds: float
) -> Iterator[str]:
    """Why ``roofline`` is not that of a call that moves so many bytes, does so many operations and
    took so many ``seconds``."""
    if not roofline.bounds or any(min(one.amount, one.rate) <= 0 for one in roofline.bounds):
        yield "a roofline has bounds, whose amounts and rates are above zero"
        return
    for one in roofline.bounds:
        if one.name != ARITHMETIC and not _BANDWIDTHS.fullmatch(one.name):
            yield f"a bound is of arithmetic or of some bandwidth, not {one.name!r}"
    of_bytes = sum(one.amount for one in roofline.bounds if one.name != ARITHMETIC)
    of_operations = sum(one.amount for one in roofline.bounds if one.name == ARITHMETIC)
    for what, found, wanted in (
        ("bytes read and written", roofline.bytes_read + roofline.bytes_written, moved),
        ("bytes of the bounds", of_bytes, moved),
        ("operations of the bounds", of_operations, operations),
    ):
        if not math.isclose(found, wanted, rel_tol=ROUNDING):
            yield f"the {what} are {found:g}, the sample's {wanted:g}"
    if min(roofline.bytes_read, roofline.bytes_written) < 0:
        yield (
            f"{roofline.bytes_read:g} bytes read and {roofline.bytes_written:g} written: neither "
            "can be below zero"
        )
    binding = roofline.bound
    if roofline.binding != binding.name:
        yield f"{roofline.binding!r} is named as what binds, {binding.name!r} takes longer"
    fraction = binding.seconds / seconds
    if not math.isclose(fraction, roofline.fraction, rel_tol=ROUNDING):
        yield f"fraction is {roofline.fraction:g}, {binding.name} and rounds make it {fraction:g}"
    if fraction > 1:
        yield (
            f"{fraction:.3g} of what {binding.name} allows: above 1 an instrument is at fault, "
            "of the clock or of the bound"
        )


def beyond_peak(roofline: Roofline, peak: Peak, width: Width) -> Iterator[str]:
    """The bounds of ``roofline`` that a device with this ``peak`` cannot have shown."""
    for one in roofline.bounds:
        if one.name == ARITHMETIC:
            # Numbers of 16 bits may be computed with as those of 32.
            most = max(peak.operations[width], peak.operations["32"] if width == "16" else 0.0)
        else:
            # A size little larger than the caches is still served by them in part.
            most_cached = 8 * max(roofline.caches.values(), default=math.inf)
            far = one.size is not None and one.size >= most_cached
            most = peak.bandwidth * (1.0 if far else CACHE_FACTOR)
        if one.rate > CEILING_SLACK * most:
            yield f"{one.name} of {one.rate:.3g} a second is more than the {most:.3g} that it has"
