"""Which arm is behind, from enough paired seeds and with Holm's correction over all comparisons; or
why there is no verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from equivbench.counted import counted
from equivbench.gap.campaigns import LEAD_SEEDS
from equivbench.gap.finals import Finals
from equivbench.gap.intervals import LEVEL, Component, combined, group_part
from equivbench.gap.pairing import MatchedRuns
from equivbench.specs import CONTESTANTS, Contestant

POWER = 0.8
"""Chance of a verdict that ``seeds_needed`` is for."""
MOST_SEEDS = 1000
"""More than this nobody runs: nothing is said beyond."""
CANDIDATE_SEEDS = np.unique(np.r_[LEAD_SEEDS:50, np.geomspace(50, MOST_SEEDS, 78).round()])
"""Numbers of seeds that are asked for: every one up to fifty, then in steps of 4%."""


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


@dataclass(frozen=True)
class Contrast:
    """What the final losses of a pair's two arms say by themselves; which of them is behind depends
    on how many other pairs there are too."""

    seeds: int
    against: str | None
    """Why they decide nothing, whatever they are."""
    higher: Contestant
    """The arm with the higher mean loss."""
    p: float | None
    """Two-sided, of the paired test that both arms have the same loss."""
    effect: float | None
    """The mean log ratio of the seeds that both arms finished, without its sign; None from fewer
    than two."""
    between: float
    """The variance of these log ratios."""
    groups: tuple[float, float] | None
    """The part of the variance of their mean that is due to the choice of test groups, and its
    degrees of freedom; None where they are not known."""

    @classmethod
    def of(cls, runs: MatchedRuns, finals: Finals) -> Contrast:
        """That of ``runs``, whose final losses are ``finals``."""
        ratio, differences = finals.ratio, finals.differences
        p, groups = float(ratio.p[0]), None
        first, second = (finals.influence[arm] for arm in CONTESTANTS)
        if first.shape == second.shape and first.size:
            part = group_part((first - second).mean(axis=0)[:, None])
            groups = float(part.variance[0]), float(part.freedom)
        several = len(differences) > 1
        return cls(
            seeds=len(runs.seeds),
            against=_against(runs, finals),
            higher="equivariant" if ratio.mid[0] > 0 else "augmented",
            p=p if math.isfinite(p) else None,
            effect=abs(float(differences.mean())) if several else None,
            between=float(differences.var(ddof=1)) if several else 0.0,
            groups=groups,
        )


def verdicts(contrasts: Sequence[Contrast]) -> list[GapVerdict]:
    """The verdict on each of ``contrasts``, corrected over those that have nothing against them."""
    tested = [
        (index, each.p)
        for index, each in enumerate(contrasts)
        if each.against is None and each.p is not None
    ]
    adjusted = holm([p for _, p in tested])
    corrected = {index: p for (index, _), p in zip(tested, adjusted, strict=True)}
    return [
        _verdict(each, corrected.get(index), max(1, len(tested)))
        for index, each in enumerate(contrasts)
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


def seeds_needed(contrast: Contrast, tests: int) -> int | None:
    """Fewest seeds with which the paired test has a power of :data:`POWER` at the mean log ratio
    and the spreads seen, at the level that Holm's correction over ``tests`` asks of its first.

    The test set stays as it is: its part of the error does not fall with more seeds.
    """
    if not contrast.effect or contrast.between == 0:
        return None
    seeds = CANDIDATE_SEEDS
    parts = [Component(contrast.between / seeds, seeds - 1)]
    if contrast.groups is not None:
        parts.append(Component(np.array(contrast.groups[:1]), contrast.groups[1]))
    variance, freedom = combined(parts)
    bound = special.stdtrit(freedom, 1 - (1 - LEVEL) / tests / 2)
    # Beyond a hundred standard errors the power is one, and the function fails.
    shift = np.minimum(contrast.effect / np.sqrt(variance), 100.0)
    enough = special.nctdtr(freedom, shift, bound) <= 1 - POWER
    return int(seeds[enough][0]) if enough.any() else None


def _against(runs: MatchedRuns, finals: Finals) -> str | None:
    """Why ``runs`` decide nothing whatever their losses are."""
    if runs.undecidable is not None:
        return runs.undecidable
    count = len(runs.seeds)
    if count < LEAD_SEEDS:
        return f"{counted(count, 'seed')}; a verdict takes {LEAD_SEEDS}"
    low = finals.not_past_untrained()
    if low:
        which = f"the {low[0]} arm is not" if len(low) == 1 else "neither arm is"
        return f"{which} past the best predictor that needs no training by more than its interval"
    return None


def _verdict(contrast: Contrast, p_holm: float | None, tests: int) -> GapVerdict:
    needed, p = seeds_needed(contrast, tests), contrast.p
    if contrast.against is not None:
        return GapVerdict(None, contrast.against, p, None, needed)
    if p_holm is None:
        return GapVerdict(None, "no seed tells the arms apart", p, None, needed)
    shown = f"{p_text(p_holm)} after Holm's correction over {counted(tests, 'comparison')}"
    if p_holm >= 1 - LEVEL:
        return GapVerdict(None, f"{shown}, not below {1 - LEVEL:.2g}", p, p_holm, needed)
    return GapVerdict(contrast.higher, f"{contrast.seeds} seeds, {shown}", p, p_holm, needed)


def p_text(p: float) -> str:
    """``p`` in words no more precise than a Student test of a few seeds can be."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
