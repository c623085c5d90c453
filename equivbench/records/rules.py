"""What a rule of validation is, and how records are held against rules.

A rule says one thing that is always true of an honest record, such as "the clock's parts add up to
its wall time". To add one, write a function that yields a sentence for each way in which a record
breaks it, and put it into the table of its kind: ``CONSISTENCY``, ``EVALUATED``, ``CIRCUMSTANCES``,
``PLAUSIBILITY`` or ``UNUSUAL`` for run records, ``KERNEL_RULES`` for kernel samples, the table of a
study for the lines that it writes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from equivbench.records.files import NUMBERS
from equivbench.records.metrics import METRICS

LARGEST = 1e30
"""Beyond it a number measures nothing here; sums and products of such numbers still are finite."""

T = TypeVar("T")
Rule = Callable[[T], Iterable[str]]
"""A sentence for each way in which a record breaks the rule that its docstring states."""


def broken_rules(record: object, rules: Iterable[Rule[Any]]) -> list[str]:
    """The sentences of all ``rules`` that ``record`` breaks.

    A record with a number beyond :data:`LARGEST` is not looked at any further: the other rules
    could not be computed.
    """
    beyond = too_large(msgspec.to_builtins(record))
    if beyond is not None:
        return [beyond]
    return [sentence for rule in rules for sentence in rule(record)]


def too_large(plain: Any) -> str | None:
    """A sentence on the first number of ``plain`` (dicts and lists) beyond ``LARGEST``, or None."""
    if not _holds_too_large(plain):
        return None
    path = next(path for path, item in leaves(plain) if _is_too_large(item))
    return f"{path} is beyond {LARGEST:g} either way, which measures nothing"


def _holds_too_large(plain: Any) -> bool:
    """Whether there is one: in nearly no record, and without a path in a third of the time."""
    for item in plain.values() if isinstance(plain, dict) else plain:
        kind = type(item)
        if kind is dict or (kind is list and not NUMBERS.issuperset(map(type, item))):
            if _holds_too_large(item):
                return True
        elif _is_too_large(item):
            return True
    return False


def _is_too_large(item: Any) -> bool:
    kind = type(item)
    if kind is float or kind is int:
        return not -LARGEST <= item <= LARGEST
    return kind is list and bool(item) and not (min(item) >= -LARGEST and max(item) <= LARGEST)


def nulls(plain: Any) -> list[str]:
    """The paths of the nulls in nested dicts and lists, as :func:`leaves` gives them."""
    found: list[str] = []
    _gather_nulls(plain, (), found)
    return found


def _gather_nulls(plain: Any, path: tuple[Any, ...], found: list[str]) -> None:
    for key, item in plain.items() if isinstance(plain, dict) else enumerate(plain):
        kind = type(item)
        if item is None:
            found.append(".".join(map(str, (*path, key))))
        elif kind is dict or (kind is list and not NUMBERS.issuperset(map(type, item))):
            _gather_nulls(item, (*path, key), found)


def leaves(plain: Any, _path: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """(path, value) of all that nested dicts and lists hold; a list of numbers, of which a record
    has thousands, is one value."""
    for key, item in plain.items() if isinstance(plain, dict) else enumerate(plain):
        kind = type(item)
        if kind is dict or (kind is list and not NUMBERS.issuperset(map(type, item))):
            yield from leaves(item, (*_path, key))
        else:
            yield ".".join(map(str, (*_path, key))), item


SUM_TOLERANCE = 1e-6
"""Relative: parts are added up in float64 over at most some 1e9 terms, and a defect is far
larger."""


def out_of_range(values: Mapping[str, float | None]) -> Iterator[str]:
    """A sentence for each of ``values``, by metric, that is outside its metric's range."""
    for name, value in values.items():
        if value is None:
            continue
        metric = METRICS[name]
        # Nearly all are well inside.
        if metric.low < value <= metric.high and value < math.inf:
            continue
        problem = metric.problem(value)
        if problem is not None:
            yield problem


def close(first: float, second: float) -> bool:
    """Whether two sums of the same numbers agree."""
    # The absolute part is a nanosecond: below it a clock has nothing to say.
    return abs(first - second) <= SUM_TOLERANCE * max(abs(first), abs(second)) + 1e-9
