"""A roofline for samples of tests: one that follows from what the sample says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equivbench.records.roofline import ARITHMETIC, Bound, Roofline


def toy_roofline(settings: Mapping[str, Any]) -> Roofline:
    """Of a kernel sample with these ``settings``: a tenth of the bytes is written, all move at the
    bandwidth of its copy, and arithmetic is far from binding it."""
    moved, operations = settings["bytes_fused"], settings["operations"]
    seconds = max(1e-9, min(settings["rounds"], default=1.0))
    bounds = [Bound(name="memory bandwidth", amount=moved, rate=settings["bandwidth"], size=1e9)]
    if operations > 0:
        rate = max(1e11, 4 * operations / seconds)
        bounds.append(Bound(name=ARITHMETIC, amount=operations, rate=rate))
    binding = max(bounds, key=lambda one: one.amount / one.rate if one.rate else 0.0)
    return Roofline(
        bytes_read=0.9 * moved,
        bytes_written=0.1 * moved,
        bounds=bounds,
        binding=binding.name,
        fraction=binding.amount / binding.rate / seconds if binding.rate else 0.5,
        caches={"L2": 2**20, "L3": 2**25},
    )
