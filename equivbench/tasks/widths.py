"""The same arm at another size: its declared widths multiplied, everything else as it is."""

from __future__ import annotations

import math
from typing import Any

from equivbench.errors import UsageError
from equivbench.pairs import Arm


def resized(arm: Arm, preset: str, factor: float) -> dict[str, Any]:
    """The entries of the arm's config that change where all its widths are multiplied by ``factor``
    > 0.

    Each width is rounded to the nearest multiple that the arm declares, at least one of it. Nothing
    changes at factor 1. Raises ``UsageError`` for an arm that declares no widths and for a factor
    that is no positive number.
    """
    if not (math.isfinite(factor) and factor > 0):
        raise UsageError(
            f"a size factor must be a positive number, not {factor:g}; give for example 0.5"
        )
    if not arm.widths:
        raise UsageError(
            f"the arm {arm.name!r} declares no widths (Arm.widths), so its size cannot be changed"
        )
    if factor == 1:
        return {}
    config = arm.presets[preset].config
    changed: dict[str, Any] = {}
    for name, step in arm.widths.items():
        multiple = int(config[step]) if isinstance(step, str) else step
        width = config[name]
        if isinstance(width, int):
            changed[name] = _rounded(factor * width, multiple)
        else:
            changed[name] = type(width)(_rounded(factor * each, multiple) for each in width)
    return changed


def _rounded(width: float, multiple: int) -> int:
    """The nearest multiple, ties upwards."""
    return multiple * max(1, math.floor(width / multiple + 0.5))
