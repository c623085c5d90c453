"""How the arms of a pair compare with its augmented arm, each seed by seed: the ratio of their
final losses, and who is ahead after Holm's correction over all arms that are compared.

The gap is that of two arms; this is for the further ones, with the gap's own rules: arms that took
turns in one contest, three seeds that both finished, on a machine of their own, past what needs no
training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equivbench.counted import counted
from equivbench.gap.campaigns import contest_of
from equivbench.gap.curves import log_influence
from equivbench.gap.finals import (
    mean_over_seeds,
    over_best_untrained,
    past_untrained,
    shared_groups,
)
from equivbench.gap.intervals import LEVEL, Quantity, exponential
from equivbench.gap.verdicts import LEAD_SEEDS, holm, p_text
from equivbench.records.disturbed import disturbance
from equivbench.records.schema import RunRecord, Test

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ArmContrast:
    """An arm's final losses over those of the augmented arm of the same seeds, by themselves."""

    ratio: Quantity
    """Below 1 the arm has the lower loss; the mean over the seeds that both finished."""
    p: float | None
    """Two-sided, of the paired test that both have the same loss."""
    against: str | None
    """Why they decide nothing, whatever they are."""


def contrast(
    own: Sequence[RunRecord], plain: Sequence[RunRecord], started: int
) -> ArmContrast | None:
    """That of the finished runs of an arm and of the augmented one, each of one campaign and
    setting, whole, which have ``started`` seeds between them; None where they share none."""
    partners = {run.seed: run for run in plain}
    pairs = [(run, partners[run.seed]) for run in own if run.seed in partners]
    if not pairs:
        return None
    sides = tuple(list(runs) for runs in zip(*pairs, strict=True))
    tests = [[run.final for run in runs if run.final is not None] for runs in sides]
    grouped = shared_groups([test for side in tests for test in side])
    logs = [np.log([test.total or np.nan for test in side]) for side in tests]
    influence = [_influence(side, grouped) for side in tests]
    band = mean_over_seeds(logs[0] - logs[1], influence[0] - influence[1])
    p = float(band.p[0])
    return ArmContrast(
        ratio=exponential(band),
        p=p if np.isfinite(p) else None,
        against=_against(started, pairs, influence),
    )


def arm_verdicts(contrasts: Sequence[ArmContrast]) -> list[str]:
    """What each of ``contrasts`` comes to, corrected over those that have nothing against them:
    ``ahead``, ``behind`` or ``not decided``, with p, or why they decide nothing."""
    tested = [
        (place, each.p)
        for place, each in enumerate(contrasts)
        if each.against is None and each.p is not None
    ]
    adjusted = holm([p for _, p in tested])
    corrected = {place: p for (place, _), p in zip(tested, adjusted, strict=True)}
    return [_verdict(each, corrected.get(place)) for place, each in enumerate(contrasts)]


def _influence(tests: Sequence[Test], grouped: bool) -> Array:
    return np.array([log_influence(test.groups if grouped else None) for test in tests])


def _against(
    started: int, pairs: Sequence[tuple[RunRecord, RunRecord]], influence: Sequence[Array]
) -> str | None:
    """Why ``pairs``, of ``started`` seeds, decide nothing whatever their losses are."""
    if len(pairs) < started:
        return f"both arms finished {len(pairs)} of {started} seeds"
    if any(contest_of(first) != contest_of(second) for first, second in pairs):
        return "did not take turns in one contest"
    if any(disturbance(run) is not None for pair in pairs for run in pair):
        return "a run did not have its machine"
    if len(pairs) < LEAD_SEEDS:
        return f"{counted(len(pairs), 'seed')}; a verdict takes {LEAD_SEEDS}"
    for runs, moved in zip(zip(*pairs, strict=True), influence, strict=True):
        if not past_untrained([over_best_untrained(run) for run in runs], moved):
            return "not past the best predictor that needs no training"
    return None


def _verdict(each: ArmContrast, p_holm: float | None) -> str:
    if each.against is not None:
        return each.against
    if p_holm is None or each.ratio.value is None:
        return "no seed tells the arms apart"
    if p_holm >= 1 - LEVEL:
        return f"not decided, {p_text(p_holm)}"
    return f"{'ahead' if each.ratio.value < 1 else 'behind'}, {p_text(p_holm)}"
