"""Values that a ``setup_cache`` measured, and how the ``track_...`` methods hand them to asv.

asv takes every value for finite, positive and better when lower; NaN it reads as "skipped" and says
nothing. So what is no such number is an error, and what could not be measured is kept as the
reason, for its own benchmarks alone to fail with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

Values = dict[str, dict[str, float] | str]
"""By what was measured: its values by name, or why there are none."""


def positive(value: float, what: str) -> float:
    """``value`` as a plain float; raises ``ValueError`` where it is no finite number above zero."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{what} is {value}, which is no positive number")
    return float(value)


def read(values: Mapping[str, dict[str, float] | str], name: str, key: str) -> float:
    """One value; raises ``RuntimeError`` with the reason where it was not measured."""
    found = values[name]
    if isinstance(found, str):
        raise RuntimeError(found)
    if key not in found:
        raise RuntimeError(f"{key} of {name} was not measured")
    return found[key]


ABSENT = "absent: "
"""How the reason begins where something is not there at all, which is no failure."""


def skip_absent(values: Mapping[str, dict[str, float] | str], name: str) -> None:
    """Raise ``NotImplementedError``, asv's word for "skipped", where ``name`` is not there."""
    found = values[name]
    if isinstance(found, str) and found.startswith(ABSENT):
        raise NotImplementedError(found)
