"""A value that was not measured is null with a reason: which nulls of a record have none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from equivbench.records.reading import NUMBERS

MEANS_NONE = re.compile(
    r"reason|recipe\..*|model\.wrapper|model\.config\..*|budget\.extends|throughput\.alternated_with|throughput\.step_seconds"
    r"|matching\.hardware|environment\.driver|git\..*"
)
"""Fields whose null says "none" or follows from another field; every other null is a missing
measurement."""


def unexplained(plain: dict[str, Any], reasons: dict[str, str]) -> Iterator[str]:
    """What is wrong with the nulls of a record (dicts and lists): a sentence for each without an
    entry in ``reasons``."""
    for path in _null_paths(plain):
        if not MEANS_NONE.fullmatch(path) and not _is_explained(path, reasons):
            yield f"{path} is null and reasons has no entry for it"


def _null_paths(value: Any, path: str = "") -> Iterator[str]:
    """Where ``value`` holds null. Numbers, of which a record has thousands, are passed over."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if item is None:
            yield f"{path}{key}"
        elif type(item) is dict or (type(item) is list and not NUMBERS.issuperset(map(type, item))):
            yield from _null_paths(item, f"{path}{key}.")


def _is_explained(path: str, reasons: dict[str, str]) -> bool:
    """Whether there is a reason for ``path`` or for a whole that it is part of; one without list
    positions serves them all."""
    names = path.split(".")
    for parts in (names, [name for name in names if not name.isdigit()]):
        if any(".".join(parts[:end]) in reasons for end in range(1, len(parts) + 1)):
            return True
    return False
