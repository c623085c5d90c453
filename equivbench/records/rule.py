"""What a rule of validation is.

A rule says one thing that is always true of an honest record, such as "the clock's parts add up to
its wall time". To add one, write a function that yields a sentence for each way in which a record
breaks it, and put it into the table of its kind: ``CONSISTENCY`` or ``PLAUSIBILITY`` for run
records (together ``RUN_RULES`` of :mod:`equivbench.records.validate`), ``KERNEL_RULES`` in
:mod:`equivbench.records.kernels` for kernel samples, the table of a study for the lines that it
writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from equivbench.records.untrusted import NUMBERS

LARGEST = 1e30
"""Beyond it a number measures nothing here; sums and products of such numbers still are finite."""

T = TypeVar("T")


@dataclass(frozen=True)
class Rule(Generic[T]):
    """One rule of validation.

    ``broken(record)`` yields a sentence for each way in which a record of type ``applies_to``
    breaks it; ``name`` is what is always true of an honest one.
    """

    name: str
    applies_to: type[T]
    broken: Callable[[T], Iterable[str]]


def broken_rules(record: object, rules: Iterable[Rule[Any]]) -> list[str]:
    """The sentences of all ``rules`` that ``record`` breaks.

    A record with a number beyond :data:`LARGEST` is not looked at any further: the other rules
    could not be computed.
    """
    beyond = too_large(msgspec.to_builtins(record))
    if beyond is not None:
        return [beyond]
    return [sentence for rule in rules for sentence in rule.broken(record)]


def too_large(plain: Any) -> str | None:
    """A sentence on the first number of ``plain`` (dicts and lists) beyond ``LARGEST``, or None."""
    stack: list[tuple[str, Any]] = [("", plain)]
    while stack:
        path, value = stack.pop()
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            kind = type(item)
            if kind is float or kind is int:
                beyond = not -LARGEST <= item <= LARGEST
            elif kind is list and item and NUMBERS.issuperset(map(type, item)):
                # Thousands of numbers, in one go.
                beyond = min(item) < -LARGEST or max(item) > LARGEST
            else:
                beyond = False
                if kind is dict or kind is list:
                    stack.append((f"{path}{key}.", item))
            if beyond:
                return f"{path}{key} is beyond {LARGEST:g} either way, which measures nothing"
    return None
