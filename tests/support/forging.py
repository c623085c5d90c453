"""What forgeries of a record are made of: fields set and scaled, an evaluation changed wherever it
stands, one after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from spoil import Plain, set_at

Change = Callable[[Plain], None]


def put(**values: Any) -> Change:
    """Sets fields by their paths, ``__`` for a dot."""

    def change(record: Plain) -> None:
        for path, value in values.items():
            set_at(record, path.replace("__", "."), value)

    return change


def scaled(factor: float, *paths: str) -> Change:
    """Multiplies the numbers at ``paths``, lists item by item."""

    def change(record: Plain) -> None:
        for path in paths:
            *parents, last = path.split(".")
            holder = record
            for key in parents:
                holder = holder[key]
            value = holder[last]
            holder[last] = (
                [factor * each for each in value] if isinstance(value, list) else factor * value
            )

    return change


def all_of(*changes: Change) -> Change:
    def change(record: Plain) -> None:
        for each in changes:
            each(record)

    return change


def tests_of(record: Plain) -> Iterator[Plain]:
    """Every evaluation on the test set, shared ones once."""
    for point in record["trace"]:
        yield from (point["test"], point["ema"])
    yield from (rung["test"] for rung in record["rungs"][:-1])
    yield from (record[name] for name in ("final", "final_on_part", "final_raw", "final_ema"))


def same_final(record: Plain) -> None:
    """The last rung has the final result."""
    record["rungs"][-1]["test"] = copy.deepcopy(record["final"])


def in_all(change: Callable[[Plain], None]) -> Change:
    def everywhere(record: Plain) -> None:
        for test in tests_of(record):
            change(test)
        same_final(record)

    return everywhere


def at_end(change: Callable[[Plain], None]) -> Change:
    def final(record: Plain) -> None:
        change(record["final"])
        same_final(record)

    return final


def renamed(record: Plain, old: str, new: str) -> None:
    record["run_id"] = record["run_id"].replace(old, new)


def null(path: str, reason: str = "lost") -> Change:
    def change(record: Plain) -> None:
        set_at(record, path, None)
        record["reasons"][path] = reason

    return change


def said(words: str) -> Change:
    def change(record: Plain) -> None:
        record["command"] += f" {words}"

    return change
