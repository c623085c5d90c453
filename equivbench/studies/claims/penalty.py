"""C4: that the symmetry error is a small part of the loss all along, and how much of the distance
between the arms it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from equivbench.gap.efficiency import PairGap
from equivbench.gap.intervals import UNKNOWN, Quantity
from equivbench.gap.matched import LossLevel, MatchedShares, matched_shares
from equivbench.gap.pairing import AUGMENTED
from equivbench.studies.claims.arms import AugmentedArm, augmented_arms, longest, part_of
from equivbench.studies.claims.evidence import MachineEvidence
from equivbench.studies.claims.findings import (
    ClaimFigure,
    ClaimPart,
    ClaimVerdict,
    above,
    figure,
    missing,
    percent,
    within,
)
from equivbench.studies.claims.statements import LEARNT, SMALL_PENALTY, Claim


def costs_little(claim: Claim, machine: MachineEvidence) -> list[ClaimPart]:
    """C4: a part for each pair of which both arms were run, over the levels of loss that all seeds
    of the augmented one reach."""
    split = [
        record
        for record in machine.declared
        if any(point.test.share is not None for point in record.trace)
    ]
    readable = {each.setting: each for each in matched_shares(split)}
    # An arm that ran alone, however long, has no other's losses to be matched with.
    contests = [arm for arm in augmented_arms(split) if _gap_of(arm, machine.gaps) is not None]
    arms = [(arm, _gap_of(arm, machine.gaps)) for arm in longest(contests)]
    return [
        _penalty_part(claim, readable[arm.setting], arm, gap)
        for arm, gap in arms
        if gap is not None
    ]


def _penalty_part(
    claim: Claim, readable: MatchedShares, arm: AugmentedArm, gap: PairGap
) -> ClaimPart:
    blind = min((loss for loss in (readable.zero, *readable.others.values()) if loss), default=None)
    known = [
        (level, share)
        for level in readable.levels
        if (share := _share_at(level, arm)).value is not None
    ]
    read = [
        (level, share) for level, share in known if blind and level.loss <= (1 - LEARNT) * blind
    ]
    measured = [
        percent(f"share at {level.name} (loss {level.loss:.3g})", share) for level, share in known
    ]
    measured += _beside(gap)
    verdict: ClaimVerdict = "not measured"
    over = [level.name for level, share in read if above(share, SMALL_PENALTY)]
    unsure = [level.name for level, share in read if not within(share, SMALL_PENALTY)]
    worst = max((share.value for _, share in read if share.value is not None), default=None)
    detail = "" if worst is None else f"at most {worst:.1%}{_but(gap)}"
    if over:
        verdict, reason = (
            "did not hold",
            f"more than {SMALL_PENALTY:.0%} of the loss at {' and '.join(over)}",
        )
    elif not read:
        reason = f"no loss with {LEARNT:.0%} learned that every seed came down to"
    elif unsure:
        reason = f"the intervals do not decide at {' and '.join(unsure)}"
    else:
        verdict, reason = "held", f"within {SMALL_PENALTY:.0%} of the loss wherever it was read"
    return part_of(claim, arm, "", verdict, reason, detail, tuple(measured))


def _beside(gap: PairGap) -> list[ClaimFigure]:
    """What the symmetry error is worth beside the difference between the arms."""
    measured = [figure("loss, equivariant over augmented", gap.loss_ratio)]
    accounted, what = (
        _accounted(gap),
        "part of that difference that the symmetry error accounts for",
    )
    if accounted is None:
        return [*measured, missing(what, "the equivariant arm is not surely ahead")]
    return [*measured, percent(what, Quantity(accounted), "of the logarithm")]


def _but(gap: PairGap) -> str:
    accounted = _accounted(gap)
    return "" if accounted is None else f", {accounted:.0%} of the equivariant arm's lead"


def _accounted(gap: PairGap) -> float | None:
    """log(1 - share) / log(loss ratio) where the equivariant arm is ahead by its whole interval: 1
    if symmetry were all."""
    ratio, share = gap.loss_ratio, gap.symmetry_penalty.value
    if (
        ratio.value is None
        or ratio.high is None
        or ratio.high >= 1
        or ratio.value <= 0
        or share is None
        or share >= 1
    ):
        return None
    return math.log1p(-share) / math.log(ratio.value)


def _share_at(level: LossLevel, arm: AugmentedArm) -> Quantity:
    for name in (AUGMENTED, f"{AUGMENTED} on {arm.kernels}"):
        if name in level.arms:
            return level.arms[name].share
    return UNKNOWN


def _gap_of(arm: AugmentedArm, gaps: Sequence[PairGap]) -> PairGap | None:
    found = []
    for gap in gaps:
        budget = (gap.budget["kind"], gap.budget["limit"])
        where = (
            gap.task,
            gap.pair,
            dict(gap.variant),
            gap.dataset["sha256"],
            budget,
            gap.rules_version,
        )
        own = arm.setting
        same = (
            own.task,
            own.pair,
            dict(own.variant),
            own.dataset_sha256,
            (own.budget_kind, own.budget_limit),
            own.rules_version,
        )
        if where == same and gap.kernels[AUGMENTED] == arm.kernels:
            found.append(gap)
    # The same augmented runs may stand against the equivariant arm on several backends: that of its
    # own name comes first.
    return next(
        (gap for gap in found if len(set(gap.kernels.values())) == 1), found[0] if found else None
    )
