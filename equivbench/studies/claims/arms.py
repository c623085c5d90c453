"""The augmented arm of each pair and setting, seed by seed: what most of the claims are about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from equivbench.gap.pairing import AUGMENTED, ArmRun, Setting, arm_runs
from equivbench.records.schema import RunRecord
from equivbench.studies.claims.findings import (
    ClaimFigure,
    ClaimPart,
    ClaimVerdict,
    distinct,
    run_name,
)
from equivbench.studies.claims.statements import Claim


@dataclass(frozen=True)
class AugmentedArm:
    """The augmented arm of one pair under one setting: the newest run of each finished seed."""

    setting: Setting
    kernels: str
    runs: dict[int, ArmRun]
    started: int
    """Seeds that were started."""

    @property
    def pair(self) -> str:
        """``task/pair``."""
        return f"{self.setting.task}/{self.setting.pair}"

    @property
    def name(self) -> str:
        """The pair, with the switches and the budget it was run under."""
        own = self.setting
        switches = "".join(
            f", {name} {value}" for name, value in own.variant if name not in ("sweep", "value")
        )
        return (
            f"{self.pair}{switches}, kernels {self.kernels}, {own.budget_limit:g} {own.budget_kind}"
        )

    @property
    def records(self) -> list[RunRecord]:
        """Those of the runs."""
        return [
            each
            for run in self.runs.values()
            for each in (run.record, run.longer)
            if each is not None
        ]

    @property
    def steps(self) -> int:
        """Of the longest run."""
        return max(run.trace()[0][-1].step for run in self.runs.values())


def augmented_arms(records: Sequence[RunRecord]) -> list[AugmentedArm]:
    """The augmented arm of every setting and kernel backend among ``records`` that has a finished
    seed."""
    found: dict[tuple[Setting, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.arm == AUGMENTED:
            found[Setting.of(record), record.model.kernels].append(record)
    arms = []
    for (setting, kernels), own in sorted(found.items(), key=lambda item: item[0]):
        runs = {
            seed: run
            for seed, run in arm_runs(AUGMENTED, own, []).items()
            if not run.diverged and run.trace()[0]
        }
        if runs:
            arms.append(AugmentedArm(setting, kernels, runs, len({record.seed for record in own})))
    return arms


def longest(arms: Sequence[AugmentedArm]) -> list[AugmentedArm]:
    """Of the settings that differ in their budget only, the one that was trained for the most
    steps."""
    alike: dict[tuple[object, ...], list[AugmentedArm]] = defaultdict(list)
    for arm in arms:
        where = (
            arm.setting.task,
            arm.setting.pair,
            arm.setting.dataset_sha256,
            arm.setting.sizes,
            arm.setting.variant,
        )
        alike[*where, arm.setting.rules_version, arm.kernels].append(arm)
    return [max(each, key=lambda arm: arm.steps) for each in alike.values()]


def part_of(
    claim: Claim,
    arm: AugmentedArm,
    what: str,
    verdict: ClaimVerdict,
    reason: str,
    detail: str,
    measured: tuple[ClaimFigure, ...],
    more: Sequence[RunRecord] = (),
) -> ClaimPart:
    """A part of what is found on ``claim``, resting on ``arm`` and ``more`` records; ``what`` tells
    it from others."""
    records = [*arm.records, *more]
    return ClaimPart(
        task=arm.setting.task,
        pair=", ".join(filter(None, (arm.pair, what))),
        subject=", ".join(filter(None, (arm.name, what))),
        verdict=verdict,
        reason=reason,
        detail=detail,
        measurements=measured,
        published=claim.published_on(arm.setting.task),
        runs=distinct(map(run_name, records)),
        commands=distinct(record.command for record in records),
    )
