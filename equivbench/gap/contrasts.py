"""How any arm of a pair compares with its augmented arm: the ratio of their final losses, and who
is ahead. The gap is that of two arms; a further one is held against the augmented one by the gap's
own rules, in the place of the equivariant one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from equivbench.gap.finals import Finals
from equivbench.gap.intervals import Quantity, exponential
from equivbench.gap.pairing import MatchedRuns, Setting, pair_up
from equivbench.gap.verdicts import Contrast, p_text, verdicts
from equivbench.records.schema import RunRecord
from equivbench.specs import AUGMENTED, EQUIVARIANT


@dataclass(frozen=True)
class ArmContrast:
    """An arm's final losses over those of the augmented arm, seed by seed."""

    arm: str
    setting: Setting
    ratio: Quantity
    """Below 1 the arm has the lower loss."""
    contrast: Contrast
    """With ``equivariant`` for the arm."""
    run_ids: frozenset[str]
    """Of the arm's runs."""


def arm_contrasts(
    records: Iterable[RunRecord],
    arm: str,
    whole: Callable[[RunRecord], RunRecord] = lambda record: record,
) -> list[ArmContrast]:
    """Those of ``arm`` under each setting, campaign and backend in which ``records``, all of one
    pair, have a seed of both arms. ``whole`` gives the record of what may be an outline."""
    own = [
        msgspec.structs.replace(whole(record), arm=EQUIVARIANT)
        for record in records
        if record.arm == arm
    ]
    plain = [whole(record) for record in records if record.arm == AUGMENTED]
    return [_contrast(runs, arm) for runs in pair_up([*own, *plain]).matched]


def arm_verdicts(contrasts: Sequence[ArmContrast]) -> list[str]:
    """What each of ``contrasts`` comes to, corrected over those that can be decided: ``ahead``,
    ``behind`` or ``not decided``, with p, or why they decide nothing."""
    words = {None: "not decided", AUGMENTED: "ahead", EQUIVARIANT: "behind"}
    found = verdicts([each.contrast for each in contrasts])
    return [
        verdict.reason.replace(EQUIVARIANT, each.arm)
        if verdict.p_holm is None
        else f"{words[verdict.behind]}, {p_text(verdict.p_holm)}"
        for each, verdict in zip(contrasts, found, strict=True)
    ]


def _contrast(runs: MatchedRuns, arm: str) -> ArmContrast:
    finals = Finals.of(runs)
    return ArmContrast(
        arm=arm,
        setting=runs.setting,
        ratio=exponential(finals.ratio),
        contrast=Contrast.of(runs, finals),
        run_ids=frozenset(run.record.run_id for run in runs.equivariant),
    )
