"""C1 and C2: that the share of the augmented arm's equivariance error falls early, whatever the
size of model and data."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from equivbench.gap.campaigns import telling_campaign
from equivbench.gap.efficiency import PairGap
from equivbench.gap.finals import mean_loss, mean_share
from equivbench.gap.intervals import UNKNOWN, Quantity, over_seeds
from equivbench.gap.pairing import ArmRun, Setting, arm_runs
from equivbench.records.curves import ResultWeights, common_curves, final_of
from equivbench.records.evaluations import implied_baseline
from equivbench.records.schema import RunRecord, Test
from equivbench.report.text import quantity_text
from equivbench.specs import AUGMENTED
from equivbench.studies.claims.evidence import MachineEvidence
from equivbench.studies.claims.findings import (
    ClaimPart,
    ClaimVerdict,
    above,
    decide,
    figure,
    make_part,
    percent,
    within,
)
from equivbench.studies.claims.statements import HORIZON, LEARNT, ROBUST_FACTOR, SMALL_SHARE

AXES = ("size", "data")


@dataclass(frozen=True)
class AugmentedArm:
    """The augmented arm of one pair under one setting: the first run of each finished seed."""

    setting: Setting
    kernels: str
    runs: dict[int, ArmRun]
    started: int
    """Seeds that were started in the same campaign."""
    notes: tuple[str, ...]
    """What was left out."""

    @property
    def pair(self) -> tuple[str, str]:
        """Task and pair."""
        return self.setting.task, self.setting.pair

    @property
    def switches(self) -> tuple[tuple[str, str], ...]:
        """The options of the task; what makes it a point of a sweep is left out."""
        return tuple(item for item in self.setting.variant if item[0] not in ("sweep", "value"))

    @property
    def where(self) -> str:
        """The switches and the budget it was run under, and what was left out, in words."""
        switches = "".join(f", {name} {value}" for name, value in self.switches)
        budget = f"{self.setting.budget_limit:g} {self.setting.budget_kind}"
        return ", ".join([f"{switches}, kernels {self.kernels}, {budget}", *self.notes])

    @property
    def records(self) -> list[RunRecord]:
        """Those of the runs."""
        both = [record for run in self.runs.values() for record in (run.record, run.longer)]
        return [record for record in both if record is not None]

    @property
    def factor(self) -> float | None:
        """The value of a sweep as a number; None where a stranger's record names something else,
        which is no point of these axes."""
        try:
            return float(self.value)
        except ValueError:
            return None

    @property
    def value(self) -> str:
        """The value of a sweep."""
        return dict(self.setting.variant).get("value", "")

    def finals(self, weights: ResultWeights) -> dict[int, Test]:
        """The final result of each seed that has one with a share."""
        found = {
            seed: final_of(run.longer or run.record, weights) for seed, run in self.runs.items()
        }
        return {
            seed: test
            for seed, test in found.items()
            if test is not None and test.share is not None and test.total
        }


@dataclass(frozen=True)
class ArmShare:
    """The share of the augmented arm, and how far its loss is below that of the best predictor that
    sees no shape, at a place that all finished seeds have; intervals over seeds and test groups."""

    step: float
    """Mean over seeds."""
    share: Quantity
    learned: Quantity


def augmented_arms(
    records: Sequence[RunRecord], gaps: Sequence[PairGap] = ()
) -> list[AugmentedArm]:
    """The augmented arm of every setting and kernel backend among ``records`` that has a finished
    seed: of the campaign that its gap among ``gaps`` is of, where it has one."""
    found: dict[tuple[Setting, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.arm == AUGMENTED:
            found[Setting.of(record), record.model.kernels].append(record)
    arms = []
    for (setting, kernels), own in sorted(found.items(), key=lambda item: item[0]):
        notes: list[str] = []
        gap = gap_of(setting, kernels, gaps)
        contests: Sequence[str] = () if gap is None else gap.contests
        runs = {
            seed: run
            for seed, run in arm_runs(AUGMENTED, own, notes, contests).items()
            if not run.diverged and run.results()
        }
        if runs:
            started = len({record.seed for record in telling_campaign(own, contests)})
            arms.append(AugmentedArm(setting, kernels, runs, started, tuple(notes)))
    return arms


def gap_of(setting: Setting, kernels: str, gaps: Sequence[PairGap]) -> PairGap | None:
    """That of ``gaps`` in which the augmented arm under this setting, on ``kernels``, stands."""
    found = [gap for gap in gaps if rests_on(gap, setting) and gap.kernels[AUGMENTED] == kernels]
    # The same augmented runs may stand against the equivariant arm on several backends: that of its
    # own name comes first.
    return min(found, key=lambda gap: len(set(gap.kernels.values())), default=None)


def rests_on(gap: PairGap, own: Setting) -> bool:
    """Whether ``gap`` is one of runs under this setting."""
    return (
        (gap.task, gap.pair, gap.variant) == (own.task, own.pair, dict(own.variant))
        and (gap.budget["kind"], gap.budget["limit"]) == (own.budget_kind, own.budget_limit)
        # Several data sets may be views of one file.
        and (gap.dataset["name"], gap.dataset["sha256"]) == (own.dataset, own.dataset_sha256)
        and gap.rules_version == own.rules_version
    )


def longest(arms: Sequence[AugmentedArm]) -> list[AugmentedArm]:
    """Of the settings that differ in their budget only, the one that was trained for the most
    steps."""
    alike: dict[tuple[Setting, str], list[AugmentedArm]] = defaultdict(list)
    for arm in arms:
        unbudgeted = replace(arm.setting, budget_kind="", budget_limit=0.0)
        alike[unbudgeted, arm.kernels].append(arm)
    return [
        max(each, key=lambda arm: max(run.results()[-1].step for run in arm.runs.values()))
        for each in alike.values()
    ]


def share_readings(arm: AugmentedArm, weights: ResultWeights) -> list[ArmShare]:
    """The readings of ``arm`` in order of steps, the last one of the final result on the whole test
    set."""
    records = [run.longer or run.record for run in arm.runs.values()]
    curves = common_curves(records, weights)
    places = [
        ([at.step for at in each], [at.test for at in each]) for each in zip(*curves, strict=True)
    ]
    finals = list(arm.finals(weights).values())
    if len(finals) == len(records):
        if weights == "annealed":
            places[-1:] = [([record.steps for record in records], finals)]
        else:
            # The last cooldown begins after 80% of the budget.
            places.append(([max(1, round(0.8 * record.steps)) for record in records], finals))
    return [
        _arm_share(steps, tests, records[0])
        for steps, tests in places
        if all(test.share is not None and test.total for test in tests)
    ]


def _arm_share(steps: Sequence[int], tests: Sequence[Test], record: RunRecord) -> ArmShare:
    loss, blind = mean_loss(tests), _blind(record, tests[0])
    learned = UNKNOWN if not blind else loss.map(lambda value: 1 - value / blind, falling=True)
    return ArmShare(math.fsum(steps) / len(steps), mean_share(tests), learned)


def _blind(record: RunRecord, test: Test) -> float | None:
    """The loss, on the samples of ``test``, of the best predictor that sees no shape; ``linear``
    baselines do see it. A part of the test set has another baseline than the whole."""
    known = [loss for name, loss in record.baselines.items() if name != "linear" and loss > 0]
    here = implied_baseline(test)
    whole = None if record.final is None else implied_baseline(record.final)
    if not known or not here or not whole:
        return here
    return min(known) * here / whole


def falls_early(machine: MachineEvidence, weights: ResultWeights) -> list[ClaimPart]:
    """C1: a part for each pair, over the finished seeds of its augmented arm's longest setting."""
    arms = augmented_arms(machine.declared, machine.gaps)
    return [_fall_part(arm, weights) for arm in longest(arms)]


def _is_learned(reading: ArmShare) -> bool:
    """What comes before anything is learned says nothing, in either direction."""
    return reading.learned.low is not None and reading.learned.low >= LEARNT


def crossing(readings: Sequence[ArmShare]) -> tuple[ClaimVerdict, float | None]:
    """Whether the share comes down to the bound from above it, or stays there all along, and the
    step of the first reading at which it is wholly at or below it."""
    risen, unsure, down = False, False, None
    for each in readings:
        if within(each.share, SMALL_SHARE):
            if risen:
                return "held", each.step
            down = each.step if down is None or unsure else down
            unsure = False
        elif above(each.share, SMALL_SHARE):
            risen, unsure, down = True, False, None
        else:
            unsure = True
    if down is not None and not unsure:
        return "held", down
    return ("undecided" if unsure else "did not hold"), None


def _fall_part(arm: AugmentedArm, weights: ResultWeights) -> ClaimPart:
    readings = share_readings(arm, weights)
    readable = [each for each in readings if _is_learned(each)]
    fell, crossed = crossing([each for each in readable if each.step <= HORIZON])
    end = readings[-1] if readings else ArmShare(0.0, UNKNOWN, UNKNOWN)
    bound = f"{SMALL_SHARE:.0%}"
    decided = decide(
        (not readings, "not measured", "no share that all finished seeds have"),
        (
            not _is_learned(end),
            "not measured",
            f"not surely {LEARNT:.0%} is learned by the end, so the share says nothing yet",
        ),
        (
            fell == "held" and within(end.share, SMALL_SHARE),
            "held",
            f"at most {bound} at the end too",
        ),
        (
            fell == "held" and above(end.share, SMALL_SHARE),
            "held",
            "as a first crossing, not as an end state",
        ),
        (fell == "held", "held", "as a first crossing; the interval does not decide at the end"),
        (
            fell == "undecided",
            "undecided",
            f"the intervals do not decide whether it falls to {bound}",
        ),
        (
            end.step >= HORIZON,
            "did not hold",
            f"no fall to {bound} within {HORIZON:,} steps",
        ),
        (True, "not measured", f"ends above {bound}, before {HORIZON:,} steps"),
    )
    shares = [each.share.value for each in readings if each.step <= HORIZON]
    published: ClaimVerdict = decide(
        (any(share is not None and share <= SMALL_SHARE for share in shares), "held", None),
        (end.step >= HORIZON, "did not hold", None),
        (True, "not measured", None),
    )[0]
    highest = max(readable, key=lambda each: each.share.value or 0.0, default=None)
    first = readable[0].step if readable else None
    measured = (
        percent("share at the end", end.share),
        percent("learned by the end", end.learned),
        percent("highest share once it can be read", UNKNOWN if highest is None else highest.share),
        figure("first evaluation that can be read", Quantity(first), "steps"),
        figure(f"first evaluation wholly at or below {bound}", Quantity(crossed), "steps"),
        figure("steps at the end", Quantity(end.step or None), "steps"),
    )
    detail = ""
    if readings:
        count, started = len(arm.runs), arm.started
        seeds = "" if count == started else f", {count} of {started} seeds"
        share = quantity_text(end.share, 2, kind="percent")
        detail = f"{share} at {end.step:,.0f} steps{seeds}"
    return make_part(arm.pair, "", arm.where, decided, published, detail, measured, arm.records)


def whatever_the_size(machine: MachineEvidence, weights: ResultWeights) -> list[ClaimPart]:
    """C2: a part for each pair and axis of a sweep that the pair as declared was run beside."""
    declared = augmented_arms(machine.declared, machine.gaps)
    bases = {_apart_from_sweep(arm): arm for arm in declared}
    sweeps: dict[tuple[tuple[Setting, str], str], list[AugmentedArm]] = defaultdict(list)
    for arm in augmented_arms(machine.records):
        axis = dict(arm.setting.variant).get("sweep")
        if axis in AXES and arm.factor not in (None, 1.0):
            sweeps[_apart_from_sweep(arm), axis].append(arm)
    return [
        _sweep_part(axis, bases[where], points, weights)
        for (where, axis), points in sweeps.items()
        if where in bases
    ]


def _sweep_part(
    axis: str, base: AugmentedArm, points: Sequence[AugmentedArm], weights: ResultWeights
) -> ClaimPart:
    before = base.finals(weights)
    measured = [percent(f"share at {axis} 1", mean_share(list(before.values())))]
    harmful, unmeasured, undecided, figures, published = [], [], [], [], []
    for point in sorted(points, key=lambda each: each.factor or 0.0):
        after = point.finals(weights)
        tests = list(after.values())
        name = f"{axis} {point.value}"
        share = mean_share(tests)
        learned = (
            _arm_share([1] * len(tests), tests, point.records[0]).learned if tests else UNKNOWN
        )
        ratio, error = (_times_before(before, after, what) for what in ("share", "equivariance"))
        measured += [
            percent(f"share at {name}", share),
            percent(f"learned at {name}", learned),
            figure(f"share at {name}, times that of the pair as declared", ratio),
            figure(f"equivariance error at {name}, times that of the pair as declared", error),
        ]
        figures.append(f"{point.value}: {_times(ratio)}")
        published.append(ratio.value is not None and ratio.value <= ROBUST_FACTOR)
        if learned.low is None or learned.low < LEARNT:
            unmeasured.append(f"not surely {LEARNT:.0%} is learned at {name}")
        elif above(share, SMALL_SHARE) and above(ratio, ROBUST_FACTOR):
            harmful.append(name)
        elif not (within(share, SMALL_SHARE) or within(ratio, ROBUST_FACTOR)):
            undecided.append(f"the intervals do not decide at {name}")
    decided = decide(
        (
            harmful,
            "did not hold",
            f"at {' and '.join(harmful)} the share is above {SMALL_SHARE:.0%} and more than "
            f"{ROBUST_FACTOR:g} times as large",
        ),
        (unmeasured, "not measured", " and ".join([*unmeasured, *undecided])),
        (undecided, "undecided", " and ".join(undecided)),
        (
            True,
            "held",
            f"the share stays at most {SMALL_SHARE:.0%}, or within {ROBUST_FACTOR:g} times that "
            "of the pair as declared",
        ),
    )
    records = [record for arm in (base, *points) for record in arm.records]
    where = f"{base.where}, {axis}"
    return make_part(
        base.pair,
        f", {axis}",
        where,
        decided,
        "held" if all(published) else "did not hold",
        ", ".join(figures),
        measured,
        records,
    )


def _times_before(before: Mapping[int, Test], after: Mapping[int, Test], name: str) -> Quantity:
    """The mean ratio of ``name`` after over before, over the seeds that have both."""
    pairs = [
        (getattr(after[seed], name), getattr(before[seed], name))
        for seed in sorted(after)
        if seed in before
    ]
    return over_seeds([new / old for new, old in pairs if new and old and old > 0], geometric=True)


def _apart_from_sweep(arm: AugmentedArm) -> tuple[Setting, str]:
    return replace(arm.setting, sizes=(), variant=arm.switches), arm.kernels


def _times(quantity: Quantity) -> str:
    if quantity.value is None:
        return "no common seed"
    interval = "no interval"
    if quantity.low is not None and quantity.high is not None:
        interval = f"{quantity.low:.2g} to {quantity.high:.2g}"
    return f"{quantity.value:.2g} times ({interval})"
