"""Logarithmic axes of the charts: where a value lies, and which ticks a reader would choose."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

TIMES = "\N{MULTIPLICATION SIGN}"
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MANTISSAS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0))
STEPS = (5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)


@dataclass(frozen=True)
class LogScale:
    """Decimal logarithms ``low`` to ``high`` over the pixels ``start`` to ``end``, so that no value
    overflows on the way."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Pixels of a positive ``value``, held within the axis."""
        return self.at(math.log10(value))

    def at(self, log: float) -> float:
        """Pixels of the decimal logarithm ``log``, held within the axis."""
        fraction = (min(max(log, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + fraction * (self.end - self.start)

    def ticks(self, at_most: int = 6) -> list[tuple[float, str]]:
        """(pixels, label) of at most ``at_most`` ticks: decades, else 1-3, 1-2-5, else even steps
        within a decade."""
        logs = self._decades(at_most) if self.high - self.low > 2.5 else self._finer(at_most)
        return [
            (self.at(exponent + math.log10(mantissa)), label(mantissa, exponent))
            for mantissa, exponent in logs
        ]

    def _decades(self, at_most: int) -> list[tuple[float, int]]:
        first, last = math.ceil(self.low), math.floor(self.high)
        stride = math.ceil((last - first + 1) / at_most)
        return [(1.0, exponent) for exponent in range(first + (-first) % stride, last + 1, stride)]

    def _finer(self, at_most: int) -> list[tuple[float, int]]:
        found: list[tuple[float, int]] = []
        for mantissas in MANTISSAS:
            exponents = range(math.floor(self.low), math.ceil(self.high) + 1)
            ticks = [
                (m, exponent)
                for exponent in exponents
                for m in mantissas
                if self._holds(m, exponent)
            ]
            found = ticks if len(found) < len(ticks) <= at_most else found
        return found if len(found) >= 3 else self._even(at_most) or found

    def _even(self, at_most: int) -> list[tuple[float, int]]:
        """Multiples of the least round step that gives no more than ``at_most`` ticks."""
        exponent = math.floor(self.low)
        low, high = 10 ** (self.low - exponent), 10 ** (self.high - exponent)
        found: list[tuple[float, int]] = []
        for step in STEPS:
            ticks = [
                (round(k * step, 6), exponent)
                for k in range(math.ceil(low / step), math.floor(high / step) + 1)
                if k > 0
            ]
            found = ticks if len(ticks) <= at_most else found
        return found

    def _holds(self, mantissa: float, exponent: int) -> bool:
        return self.low <= exponent + math.log10(mantissa) <= self.high


def log_scale(
    values: Iterable[float], start: float, end: float, *, room: float = 0.04, least: float = 0.1
) -> LogScale | None:
    """The scale that holds all positive ``values`` with ``room`` (a fraction of the span) at both
    ends; None without any.

    The span is at least ``least`` decades, so that rounding noise does not fill the axis.
    """
    return span(
        (math.log10(value) for value in values if value > 0 and math.isfinite(value)),
        start,
        end,
        room=room,
        least=least,
    )


def span(
    decimal_logs: Iterable[float], start: float, end: float, *, room: float, least: float
) -> LogScale | None:
    """As :func:`log_scale`, from the logarithms of the values."""
    logs = list(decimal_logs)
    if not logs:
        return None
    low, high = min(logs), max(logs)
    lacking = max(0.0, least - (high - low)) / 2
    low, high = low - lacking, high + lacking
    return LogScale(low - room * (high - low), high + room * (high - low), start, end)


def label(mantissa: float, exponent: int) -> str:
    """``mantissa`` times ten to the ``exponent`` as on an axis: ``0.02``, ``500``, ``10⁻⁶``,
    ``2×10⁷``."""
    if -4 < exponent < 5:
        return (
            f"{mantissa * 10.0**exponent:.4g}"
            if exponent < 3
            else f"{mantissa * 10.0**exponent:,.0f}"
        )
    power = f"10{str(exponent).translate(SUPERSCRIPT)}"
    return power if mantissa == 1 else f"{mantissa:.4g}{TIMES}{power}"
