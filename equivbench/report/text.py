"""How a value is written for a reader, everywhere: numbers, quantities with intervals, times, and
foreign text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from equivbench.gap.intervals import Quantity

TIME_UNITS = (
    (7200.0, 3600.0, "h"),
    (120.0, 60.0, "min"),
    (1.0, 1.0, "s"),
    (1e-3, 1e-3, "ms"),
    (1e-6, 1e-6, "us"),
)
"""From how many seconds on a unit is used, its seconds, and its name."""


def printable(text: str) -> str:
    """Return ``text`` without control characters, which could drive a terminal or break a line."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def number_text(value: float, digits: int = 3) -> str:
    """Write ``value`` with ``digits`` significant digits: ``0.500``, ``12.3``, ``3.10e-10``.

    Whole numbers of a size that people read, up to a million, are never written with an exponent.
    An ``int`` is exact and written in full.
    """
    if isinstance(value, int):
        return str(value)
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits}g}")
    if 10 ** (digits - 1) <= abs(rounded) < 1e6:
        return f"{value:.0f}"
    # The # keeps trailing zeros, which say how well a number is known, but also a lone point.
    return f"{value:#.{digits}g}".removesuffix(".").replace(".e", "e")


def percent_text(value: float, digits: int = 3) -> str:
    """Write a fraction as a percentage with ``digits`` significant digits: ``4.56%``."""
    return f"{number_text(100.0 * value, digits)}%"


def change_text(value: float, digits: int = 3) -> str:
    """Write a relative change as a percentage with its sign: ``+4.56%``."""
    return ("+" if value > 0 else "") + percent_text(value, digits)


def seconds_text(seconds: float, digits: int = 3) -> str:
    """Write a time with its unit, the largest that keeps the number at least 1 (minutes and hours
    from two on)."""
    for least, size, unit in TIME_UNITS:
        if seconds >= least:
            return f"{number_text(seconds / size, digits)} {unit}"
    return "0 s" if seconds == 0 else f"{number_text(seconds / 1e-9, digits)} ns"


def loss_in(unit: str) -> str:
    """What a caption says of the unit of its losses: ``loss in nm^2``, or ``loss without unit``
    where they are plain numbers."""
    return "loss without unit" if unit == "1" else f"loss in {unit or 'the unit of the task'}"


WRITERS = {
    "number": number_text,
    "percent": percent_text,
    "change": change_text,
    "seconds": seconds_text,
}
"""How the numbers of each kind of column are written."""


def quantity_text(
    quantity: Quantity,
    digits: int = 3,
    *,
    kind: str = "number",
    interval: bool = True,
    why: str | None = None,
) -> str:
    """Write a quantity with its interval: ``0.498 (0.465 to 0.534)``.

    Parameters
    ----------
    quantity
        The value with the ends of its interval, and on which side of it the truth lies if the
        value is only a bound.
    digits
        Significant digits of the value and of both ends.
    kind
        ``number``, ``percent``, ``change`` or ``seconds``.
    interval
        Whether the interval is written. An end that the data leave open is written as ``0.235 or
        more`` or ``1.76 or less``; behind a bound it says what is sure, ``more than 1.62 (surely
        1.55 or more)``.
    why
        For sentences: a bound is written with this reason behind it in place of its interval,
        ``more than 1.62 (it never tied within the budget)``.

    Returns
    -------
    str
        ``-`` where nothing was measured, ``infinite`` for a bound without a value (a diverged arm).
    """
    write = WRITERS.get(kind, number_text)
    if quantity.value is None:
        return {"above": "infinite", "below": "below any bound", None: "-"}[quantity.censored]
    value = write(quantity.value, digits)
    text = {"above": "more than ", "below": "less than ", None: ""}[quantity.censored] + value
    if quantity.censored is not None and why is not None:
        return text + (f" ({why})" if why else "")
    low, high = (
        None if end is None else write(end, digits) for end in (quantity.low, quantity.high)
    )
    # The open side of a bound says nothing new where the interval only repeats the bound.
    repeats = quantity.censored is not None and (low, high) in ((value, None), (None, value))
    if not interval or repeats or (low is None and high is None):
        return text
    sure = "surely " * (quantity.censored is not None)
    if low is None:
        return f"{text} ({sure}{high} or less)"
    return f"{text} ({sure}{low} or more)" if high is None else f"{text} ({low} to {high})"
