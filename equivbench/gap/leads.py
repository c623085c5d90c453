"""When an arm is said to be behind, and when the other is said to lead: enough seeds, and Holm's
correction over pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from equivbench.gap.resampling import LEVEL, Band, holm

LEAD_SEEDS = 6
"""No lead is claimed below this many paired seeds."""


@dataclass(frozen=True)
class Lead:
    """The claim that ``arm`` leads, or why there is none. ``p`` is two-sided at equal time,
    ``p_holm`` corrected over pairs."""

    arm: Literal["equivariant", "augmented"] | None
    p: float | None
    p_holm: float | None
    reason: str


NO_LEAD = Lead(None, None, None, "not tested")


def behind_at(equal_time: Band) -> Literal["equivariant", "augmented"] | None:
    """The arm that the interval of the log loss ratio at equal time puts behind; None where it does
    not decide."""
    if equal_time.low[0] > 0:
        return "equivariant"
    return "augmented" if equal_time.high[0] < 0 else None


def claim_leads(tests: Sequence[tuple[Band, int]]) -> list[Lead]:
    """The lead of each pair from its log loss ratio (equivariant over augmented) at equal time and
    its number of seeds.

    Only pairs with enough seeds are tested, so only they count in Holm's correction.
    """
    tested = [
        index
        for index, (band, seeds) in enumerate(tests)
        if seeds >= LEAD_SEEDS and math.isfinite(band.p[0])
    ]
    corrected = dict(
        zip(tested, holm([float(tests[index][0].p[0]) for index in tested]), strict=True)
    )
    return [_claim(band, seeds, corrected.get(index)) for index, (band, seeds) in enumerate(tests)]


def _claim(band: Band, seeds: int, p_holm: float | None) -> Lead:
    p = float(band.p[0]) if math.isfinite(band.p[0]) else None
    if seeds < LEAD_SEEDS:
        return Lead(
            None,
            p,
            None,
            f"{seeds} seed{'s' * (seeds != 1)}; a lead is claimed from {LEAD_SEEDS} on",
        )
    if p_holm is None:
        return Lead(None, p, None, "no seed tells the arms apart")
    if p_holm >= 1 - LEVEL:
        return Lead(
            None,
            p,
            p_holm,
            f"{_shown(p_holm)} after Holm's correction over pairs, not below {1 - LEVEL:.2g}",
        )
    leader: Literal["equivariant", "augmented"] = "augmented" if band.mid[0] > 0 else "equivariant"
    return Lead(
        leader, p, p_holm, f"{seeds} seeds, {_shown(p_holm)} after Holm's correction over pairs"
    )


def _shown(p: float) -> str:
    """In words no more precise than a Student test of a few seeds can be."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
