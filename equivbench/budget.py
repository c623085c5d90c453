"""A budget: how much an arm may spend."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from equivbench.errors import UsageError

Kind = Literal["seconds", "steps", "samples"]

_UNITS: dict[str, tuple[Kind, float]] = {
    "s": ("seconds", 1.0),
    "min": ("seconds", 60.0),
    "h": ("seconds", 3600.0),
    "steps": ("steps", 1.0),
    "samples": ("samples", 1.0),
}
_SUFFIX: dict[Kind, str] = {"seconds": "s", "steps": "steps", "samples": "samples"}
# A month of one device is the largest budget the board's questions are about; the counts are what
# it could hold.
_MOST: dict[Kind, float] = {"seconds": 30 * 24 * 3600.0, "steps": 1e9, "samples": 1e12}
_FORM = re.compile(
    r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|[+-]?(?:nan|inf))\s*([a-z]+)\s*",
    re.ASCII,
)


@dataclass(frozen=True)
class Budget:
    """A limit of one kind, the same for both arms of a pair. Seconds are ``clock.train +
    clock.data``.

    Raises :class:`UsageError` where the limit is not a positive, finite number, is above 30 days
    (or 1e9 steps, 1e12 samples), or is not whole although it counts steps or samples.
    """

    kind: Kind
    limit: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.limit) or self.limit <= 0:
            raise UsageError(
                f"a budget must be a positive number of {self.kind}, not {self.limit:g}"
            )
        if self.limit > _MOST[self.kind]:
            most = "30 days" if self.kind == "seconds" else f"{_MOST[self.kind]:g} {self.kind}"
            raise UsageError(
                f"a budget of {self.limit:g} {self.kind} is above the largest allowed, {most}"
            )
        if self.kind != "seconds" and self.limit != int(self.limit):
            raise UsageError(f"a budget in {self.kind} must be a whole number, not {self.limit:g}")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """The budget that ``text`` names: a number and one of ``s``, ``min``, ``h``, ``steps``,
        ``samples``."""
        found = _FORM.fullmatch(text)
        if found is None or found[2] not in _UNITS:
            raise UsageError(
                f"cannot read the budget {text!r}; write 60s, 5min, 0.5h, 2000steps or 1e6samples"
            )
        kind, scale = _UNITS[found[2]]
        return cls(kind, float(found[1]) * scale)

    @property
    def text(self) -> str:
        """The budget as ``parse`` takes it, e.g. ``300s``, ``2000steps``."""
        return f"{self.limit:.15g}{_SUFFIX[self.kind]}"

    def times(self, factor: float) -> Budget:
        """This budget ``factor`` times over; counts are rounded up to a whole number."""
        limit = self.limit * factor
        return Budget(
            self.kind,
            limit
            if self.kind == "seconds" or not math.isfinite(limit)
            else float(math.ceil(limit)),
        )
