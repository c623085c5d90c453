"""C2: that the share stays small whatever the size of the model and of the data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from equivbench.gap.intervals import Quantity, over_seeds
from equivbench.gap.pairing import Setting
from equivbench.studies.claims.arms import AugmentedArm, augmented_arms, part_of
from equivbench.studies.claims.evidence import MachineEvidence
from equivbench.studies.claims.falls import fall
from equivbench.studies.claims.findings import (
    ClaimPart,
    ClaimVerdict,
    above,
    figure,
    percent,
    within,
)
from equivbench.studies.claims.statements import LEARNT, ROBUST_FACTOR, SMALL_SHARE, Claim

AXES = ("size", "data")


def whatever_the_size(claim: Claim, machine: MachineEvidence) -> list[ClaimPart]:
    """C2: a part for each pair and axis of a sweep that the pair as declared was run beside."""
    bases = {_apart_from_sweep(arm): arm for arm in augmented_arms(machine.declared)}
    sweeps: dict[tuple[tuple[object, ...], str], list[AugmentedArm]] = defaultdict(list)
    for arm in augmented_arms(machine.records):
        axis = dict(arm.setting.variant).get("sweep")
        if axis in AXES and _factor(arm) not in (None, 1.0):
            sweeps[_apart_from_sweep(arm), axis].append(arm)
    return [
        _sweep_part(claim, axis, bases[where], points)
        for (where, axis), points in sweeps.items()
        if where in bases
    ]


def _sweep_part(
    claim: Claim, axis: str, base: AugmentedArm, points: Sequence[AugmentedArm]
) -> ClaimPart:
    before = {seed: each for seed, run in base.runs.items() if (each := fall(run)) is not None}
    measured = [percent(f"share at {axis} 1", over_seeds([each.end for each in before.values()]))]
    harmful, undecided, figures = [], [], []
    for point in sorted(points, key=lambda each: _factor(each) or 0.0):
        after = {seed: each for seed, run in point.runs.items() if (each := fall(run)) is not None}
        name = f"{axis} {_value(point)}"
        share = over_seeds([each.end for each in after.values()])
        level = over_seeds([each.learned for each in after.values()])
        ratios = [
            after[seed].end / before[seed].end
            for seed in sorted(after)
            if seed in before and before[seed].end > 0
        ]
        ratio = over_seeds(ratios, geometric=True)
        measured += [
            percent(f"share at {name}", share),
            percent(f"learned at {name}", level),
            figure(f"share at {name}, times that of the pair as declared", ratio),
        ]
        figures.append(f"{_value(point)}: {_times(ratio)}")
        if (level.value or 0.0) < LEARNT:
            undecided.append(f"less than {LEARNT:.0%} is learned at {name}")
        elif above(share, SMALL_SHARE) and above(ratio, ROBUST_FACTOR):
            harmful.append(name)
        elif not (within(share, SMALL_SHARE) or within(ratio, ROBUST_FACTOR)):
            undecided.append(f"the intervals do not decide at {name}")
    verdict: ClaimVerdict = "held"
    reason = (
        f"the share stays at most {SMALL_SHARE:.0%}, or within {ROBUST_FACTOR:g} times that "
        f"of the pair as declared"
    )
    if harmful:
        verdict = "did not hold"
        reason = (
            f"at {' and '.join(harmful)} the share is above {SMALL_SHARE:.0%} and more than "
            f"{ROBUST_FACTOR:g} times as large"
        )
    elif undecided:
        verdict, reason = "not measured", " and ".join(undecided)
    records = [record for point in points for record in point.records]
    return part_of(claim, base, axis, verdict, reason, ", ".join(figures), tuple(measured), records)


def _apart_from_sweep(arm: AugmentedArm) -> tuple[object, ...]:
    own: Setting = arm.setting
    switches = tuple(item for item in own.variant if item[0] not in ("sweep", "value"))
    where = (
        own.task,
        own.pair,
        own.dataset,
        own.dataset_sha256,
        own.rules_version,
        own.budget_kind,
        own.budget_limit,
    )
    return (*where, switches, arm.kernels)


def _factor(arm: AugmentedArm) -> float | None:
    """The value as a number; None where a stranger's record names something else, which is no point
    of these axes."""
    try:
        return float(_value(arm))
    except ValueError:
        return None


def _value(arm: AugmentedArm) -> str:
    return dict(arm.setting.variant).get("value", "")


def _times(quantity: Quantity) -> str:
    if quantity.value is None:
        return "no common seed"
    interval = (
        "no interval"
        if quantity.low is None or quantity.high is None
        else f"{quantity.low:.2g} to {quantity.high:.2g}"
    )
    return f"{quantity.value:.2g} times ({interval})"
