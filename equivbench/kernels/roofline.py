"""A call held against the ceilings of its device: which of them binds it, and how near it comes."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

from equivbench.errors import FailedError
from equivbench.kernels.caches import level_of
from equivbench.kernels.ceilings import Ceilings
from equivbench.kernels.operands import Footprint
from equivbench.kernels.operations import Costs
from equivbench.records.roofline import ARITHMETIC, BANDWIDTH, Bound, Roofline

_MEASUREMENTS = 2


class InstrumentError(FailedError):
    """A call was timed faster than its device was seen to be: the clock or a ceiling is wrong."""


class MeasuredRoof:
    """The ceilings of a device, measured by ``measure`` once, and once more where a call seems to
    be above them."""

    def __init__(self, measure: Callable[[], Ceilings]) -> None:
        self._measure = measure
        self._measured: list[Ceilings] = []

    def ready(self) -> None:
        """Measure the ceilings, if that is still to do."""
        if not self._measured:
            self._measured.append(self._measure())

    @property
    def ceilings(self) -> Ceilings:
        """The best of what was measured so far."""
        self.ready()
        return reduce(Ceilings.best, self._measured)

    def over(self, cost: Costs, footprint: Footprint, seconds: float) -> Roofline:
        """The roofline of calls that took ``seconds`` each.

        Raises ``InstrumentError`` where that is less than the ceilings allow.
        """
        found = roofline(cost, footprint, self.ceilings, seconds)
        if found.fraction > 1 and len(self._measured) < _MEASUREMENTS:
            # Whatever else ran while the ceilings were measured has lowered them.
            self._measured.append(self._measure())
            found = roofline(cost, footprint, self.ceilings, seconds)
        if found.fraction > 1:
            raise InstrumentError(_above(found.bound, seconds))
        return found


def roofline(cost: Costs, footprint: Footprint, ceilings: Ceilings, seconds: float) -> Roofline:
    """How near calls that took ``seconds`` each come to ``ceilings``, and which of these binds.

    What a call reads for the first time comes from where the whole rotation of arguments lies; what
    it reads again, what all calls share and what it writes, which goes into memory that the
    allocator gives again, from where one call's own bytes lie. Bytes of one level share it, at the
    rate of the smaller of the two sizes.
    """
    fresh = min(cost.bytes_read, footprint.fresh)
    again = footprint.fresh + footprint.shared + cost.bytes_written
    levels: dict[str | None, tuple[float, float, float]] = {}
    for read, written, size in (
        (fresh, 0.0, float(footprint.rotation)),
        (cost.bytes_read - fresh, cost.bytes_written, again),
    ):
        if read + written > 0:
            level = level_of(size, ceilings.levels)
            before = levels.get(level, (0.0, 0.0, size))
            levels[level] = before[0] + read, before[1] + written, min(before[2], size)
    bounds = [
        Bound(
            name=_name(level),
            amount=read + written,
            rate=(read + written) / ceilings.seconds(read, written, size),
            size=size,
        )
        for level, (read, written, size) in levels.items()
    ]
    if cost.operations > 0:
        bounds.append(Bound(name=ARITHMETIC, amount=cost.operations, rate=ceilings.operations))
    binding = max(bounds, key=lambda one: one.seconds)
    return Roofline(
        bytes_read=float(cost.bytes_read),
        bytes_written=float(cost.bytes_written),
        bounds=bounds,
        binding=binding.name,
        fraction=binding.seconds / seconds,
        caches={f"L{level}": size for level, size in ceilings.levels.items()},
        tf32=ceilings.tf32,
    )


def _name(level: str | None) -> str:
    if level is None:
        return BANDWIDTH
    return f"{level} {BANDWIDTH}" if level == "memory" else f"{level} cache {BANDWIDTH}"


def _above(bound: Bound, seconds: float) -> str:
    what = "operations" if bound.name == ARITHMETIC else "bytes"
    return (
        f"a call took {seconds:.3g} s, less than the {bound.seconds:.3g} s that {bound.name} allows"
        f" ({bound.amount:.3g} {what} at {bound.rate:.3g} a second, measured {_MEASUREMENTS} times"
        " here): an instrument is at fault, the clock or this measurement; time it again on a"
        " machine that does nothing else"
    )
