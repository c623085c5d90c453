"""What a rule of validation is, and how records are held against rules.

A rule says one thing that is always true of an honest record, such as "the clock's parts add up to
its wall time". To add one, write a function that yields a sentence for each way in which a record
breaks it, and put it into the table of its kind: ``CONSISTENCY``, ``EVALUATED``, ``CIRCUMSTANCES``,
``PLAUSIBILITY`` or ``UNUSUAL`` for run records, ``KERNEL_RULES`` for kernel samples, the table of a
study for the lines that it writes.
"""

from __future__ import annotations

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
    if not _has_too_large(plain):
        return None
    for path, item in leaves(plain):
        numbers = item if isinstance(item, list) else [item] if type(item) in NUMBERS else []
        if numbers and not (min(numbers) >= -LARGEST and max(numbers) <= LARGEST):
            return f"{path} is beyond {LARGEST:g} either way, which measures nothing"
    return None


def _has_too_large(plain: Any) -> bool:
    # Paths are made where there is something to say: in nearly no record.
    stack = [plain]
    while stack:
        value = stack.pop()
        for item in value.values() if type(value) is dict else value:
            kind = type(item)
            if kind is float or kind is int:
                if not -LARGEST <= item <= LARGEST:
                    return True
            elif kind is list and NUMBERS.issuperset(map(type, item)):
                if item and not (min(item) >= -LARGEST and max(item) <= LARGEST):
                    return True
            elif kind is dict or kind is list:
                stack.append(item)
    return False


def nulls(value: Any, path: str = "") -> Iterator[str]:
    """The paths of the nulls in nested dicts and lists, as :func:`leaves` gives them."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if item is None:
            yield f"{path}{key}"
        elif type(item) is dict or (type(item) is list and not NUMBERS.issuperset(map(type, item))):
            yield from nulls(item, f"{path}{key}.")


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of all that nested dicts and lists hold; a list of numbers, of which a record
    has thousands, is one value."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if type(item) is dict or (type(item) is list and not NUMBERS.issuperset(map(type, item))):
            yield from leaves(item, f"{path}{key}.")
        else:
            yield f"{path}{key}", item


SUM_TOLERANCE = 1e-6
"""Relative: parts are added up in float64 over at most some 1e9 terms, and a defect is far
larger."""


def out_of_range(values: Mapping[str, float | None]) -> Iterator[str]:
    """A sentence for each of ``values``, by metric, that is outside its metric's range."""
    for name, value in values.items():
        problem = METRICS[name].problem(value)
        if problem is not None:
            yield problem


def close(first: float, second: float) -> bool:
    """Whether two sums of the same numbers agree."""
    # The absolute part is a nanosecond: below it a clock has nothing to say.
    return abs(first - second) <= SUM_TOLERANCE * max(abs(first), abs(second)) + 1e-9
