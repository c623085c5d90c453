"""Which arm is behind, from enough paired seeds and with Holm's correction over pairs; or why there
is no verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from equivbench.gap.finals import Finals
from equivbench.gap.intervals import LEVEL, Component, combined, group_part
from equivbench.gap.pairing import ARMS, Contestant, MatchedRuns

LEAD_SEEDS = 3
"""There is no verdict below this many paired seeds."""
POWER = 0.8
"""Chance of a verdict that ``seeds_needed`` is for."""
MOST_SEEDS = 1000
"""More than this nobody runs: nothing is said beyond."""


@dataclass(frozen=True)
class GapVerdict:
    """``behind``: the arm with the higher loss, None unless that is decided; ``reason`` says why in
    either case."""

    behind: Contestant | None
    reason: str
    p: float | None
    """Two-sided, of the paired test that both arms have the same loss."""
    p_holm: float | None
    """Corrected over the pairs that could be decided."""
    seeds_needed: int | None
    """Seeds with which an effect of the size seen has an 80% chance of a verdict, if seeds differ
    as they did and as many pairs are tested; None where that is not known or more than a thousand.
    """


def verdicts(contests: Sequence[tuple[MatchedRuns, Finals]]) -> list[GapVerdict]:
    """The verdict on each of ``contests``, corrected over those that have nothing against them."""
    against = [_against(runs, finals) for runs, finals in contests]
    p_values = [_p(finals) for _, finals in contests]
    tested = [
        index
        for index, (why_not, p) in enumerate(zip(against, p_values, strict=True))
        if why_not is None and p is not None
    ]
    corrected = dict(zip(tested, holm([p_values[index] or 0.0 for index in tested]), strict=True))
    return [
        _verdict(runs, finals, why_not, p, corrected.get(index), max(1, len(tested)))
        for index, ((runs, finals), why_not, p) in enumerate(
            zip(contests, against, p_values, strict=True)
        )
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given.

    The i-th smallest of m becomes max over j <= i of min(1, (m - j + 1) p_j).

    References
    ----------
    Holm, Scandinavian Journal of Statistics 6, 65 (1979).
    """
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda each: p_values[each])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def seeds_needed(finals: Finals, tests: int) -> int | None:
    """Fewest seeds with which the paired test has a power of :data:`POWER` at the mean log ratio
    and the spreads seen, at the level that Holm's correction over ``tests`` asks of its first.

    The test set stays as it is: its part of the error does not fall with more seeds.
    """
    differences = finals.differences
    if len(differences) < 2:
        return None
    effect, between = abs(float(differences.mean())), float(differences.var(ddof=1))
    if effect == 0 or between == 0:
        return None
    # Every number up to fifty, then in steps of 4%.
    seeds = np.unique(np.r_[LEAD_SEEDS:50, np.geomspace(50, MOST_SEEDS, 78).round()])
    parts = [Component(between / seeds, seeds - 1)]
    first, second = (finals.influence[arm] for arm in ARMS)
    if first.shape == second.shape and first.size:
        parts.append(group_part((first - second).mean(axis=0)[:, None]))
    variance, freedom = combined(parts)
    bound = special.stdtrit(freedom, 1 - (1 - LEVEL) / tests / 2)
    # Beyond a hundred standard errors the power is one, and the function fails.
    shift = np.minimum(effect / np.sqrt(variance), 100.0)
    enough = special.nctdtr(freedom, shift, bound) <= 1 - POWER
    return int(seeds[enough][0]) if enough.any() else None


def _against(runs: MatchedRuns, finals: Finals) -> str | None:
    """Why ``runs`` decide nothing whatever their losses are."""
    if runs.undecidable is not None:
        return runs.undecidable
    count = len(runs.seeds)
    if count < LEAD_SEEDS:
        return f"{count} seed{'s' * (count != 1)}; a verdict takes {LEAD_SEEDS}"
    low = finals.not_past_untrained()
    if low:
        which = f"the {low[0]} arm is not" if len(low) == 1 else "neither arm is"
        return f"{which} past the best predictor that needs no training by more than its interval"
    return None


def _p(finals: Finals) -> float | None:
    p = float(finals.ratio.p[0])
    return p if math.isfinite(p) else None


def _verdict(
    runs: MatchedRuns,
    finals: Finals,
    why_not: str | None,
    p: float | None,
    p_holm: float | None,
    tests: int,
) -> GapVerdict:
    needed = seeds_needed(finals, tests)
    if why_not is not None:
        return GapVerdict(None, why_not, p, None, needed)
    if p_holm is None:
        return GapVerdict(None, "no seed tells the arms apart", p, None, needed)
    shown = f"{_shown(p_holm)} after Holm's correction over {tests} pair{'s' * (tests != 1)}"
    if p_holm >= 1 - LEVEL:
        return GapVerdict(None, f"{shown}, not below {1 - LEVEL:.2g}", p, p_holm, needed)
    behind: Contestant = "equivariant" if finals.ratio.mid[0] > 0 else "augmented"
    return GapVerdict(behind, f"{len(runs.seeds)} seeds, {shown}", p, p_holm, needed)


def _shown(p: float) -> str:
    """In words no more precise than a Student test of a few seeds can be."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
