"""C1 and C2: that the share of the augmented arm's equivariance error falls early, whatever the
size of model and data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from equivbench.gap.intervals import UNKNOWN, Quantity, over_seeds
from equivbench.gap.pairing import AUGMENTED, ArmRun, Setting, arm_runs
from equivbench.records.schema import RunRecord
from equivbench.studies.claims.evidence import MachineEvidence
from equivbench.studies.claims.findings import (
    ClaimPart,
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
    """The augmented arm of one pair under one setting: the newest run of each finished seed."""

    setting: Setting
    kernels: str
    runs: dict[int, ArmRun]
    started: int
    """Seeds that were started."""

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
        """The switches and the budget it was run under, in words."""
        switches = "".join(f", {name} {value}" for name, value in self.switches)
        budget = f"{self.setting.budget_limit:g} {self.setting.budget_kind}"
        return f"{switches}, kernels {self.kernels}, {budget}"

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

    def falls(self) -> dict[int, ShareFall]:
        """How the share of each seed went that has one."""
        return {seed: each for seed, run in self.runs.items() if (each := fall(run)) is not None}


@dataclass(frozen=True)
class ShareFall:
    """How one seed's share went: ``crossed`` is the step of the first evaluation that it had come
    down at, None if it did not."""

    crossed: int | None
    steps: int
    end: float
    learned: float
    highest: float
    """Of the shares that can be read."""

    @property
    def state(self) -> str:
        """``settled`` (down, and down at the end), ``crossed`` (down, not at the end), ``never``,
        ``open`` or ``unlearned``."""
        if self.learned < LEARNT:
            return "unlearned"
        if self.crossed is not None:
            return "settled" if self.end <= SMALL_SHARE else "crossed"
        return "never" if self.steps >= HORIZON else "open"


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
            if not run.diverged and run.results()
        }
        if runs:
            arms.append(AugmentedArm(setting, kernels, runs, len({record.seed for record in own})))
    return arms


def longest(arms: Sequence[AugmentedArm]) -> list[AugmentedArm]:
    """Of the settings that differ in their budget only, the one that was trained for the most
    steps."""
    alike: dict[tuple[Setting, str], list[AugmentedArm]] = defaultdict(list)
    for arm in arms:
        unbudgeted = replace(arm.setting, dataset="", budget_kind="", budget_limit=0.0)
        alike[unbudgeted, arm.kernels].append(arm)
    return [
        max(each, key=lambda arm: max(run.results()[-1].step for run in arm.runs.values()))
        for each in alike.values()
    ]


def fall(run: ArmRun) -> ShareFall | None:
    """How the share of ``run`` went; None where it was never measured.

    Learned is how far the loss is below that of the best predictor that sees no shape, as a part of
    the latter; 0 where nobody knows. ``linear`` baselines do see the shape.
    """
    blind = [loss for name, loss in run.record.baselines.items() if name != "linear" and loss > 0]
    points = []
    for point in run.results():
        learned = point.test.explained or 0.0
        if point.test.total is not None and blind:
            learned = 1 - point.test.total / min(blind)
        if point.test.share is not None:
            points.append((point.step, point.test.share, learned))
    if not points:
        return None
    # What comes before anything is learned says nothing, in either direction.
    readable = [(step, share) for step, share, learned in points if learned >= LEARNT]
    steps, end, learned = points[-1]
    highest = max((share for _, share in readable), default=end)
    crossed = _crossing([each for each in readable if each[0] <= HORIZON])
    return ShareFall(crossed, steps, end, learned, highest)


def _crossing(readable: Sequence[tuple[int, float]]) -> int | None:
    """Of (step, share): the first step at or below the bound after one above it, or the very first
    if none is above."""
    above = False
    for step, share in readable:
        if above and share <= SMALL_SHARE:
            return step
        above = above or share > SMALL_SHARE
    return None if above or not readable else readable[0][0]


def falls_early(machine: MachineEvidence) -> list[ClaimPart]:
    """C1: a part for each pair, over the finished seeds of its augmented arm's longest setting."""
    return [_fall_part(arm) for arm in longest(augmented_arms(machine.declared))]


def _fall_part(arm: AugmentedArm) -> ClaimPart:
    falls = list(arm.falls().values())
    states = {each.state for each in falls}
    decided = decide(
        (not falls, "not measured", "no finished seed has a share"),
        (
            "never" in states,
            "did not hold",
            f"no fall to {SMALL_SHARE:.0%} within {HORIZON:,} steps",
        ),
        (
            "unlearned" in states,
            "not measured",
            f"less than {LEARNT:.0%} is learned by the end, so the share says nothing yet",
        ),
        (
            "open" in states,
            "not measured",
            f"ends above {SMALL_SHARE:.0%}, before {HORIZON:,} steps",
        ),
        ("crossed" in states, "held", "as a first crossing, not as an end state"),
        (True, "held", f"at most {SMALL_SHARE:.0%} at the end too"),
    )
    end = over_seeds([each.end for each in falls])
    steps = [float(each.steps) for each in falls]
    crossings = [float(each.crossed) for each in falls if each.crossed is not None]
    came = len(crossings) == len(falls) > 0
    measured = (
        percent("share at the end", end),
        percent("learned by the end", over_seeds([each.learned for each in falls])),
        percent("highest share once it can be read", over_seeds([each.highest for each in falls])),
        figure(
            f"first evaluation that can be read, at or below {SMALL_SHARE:.0%}",
            over_seeds(crossings, geometric=True) if came else UNKNOWN,
            "steps",
            "" if came else f"reached by {len(crossings)} of {len(falls)} seeds",
        ),
        figure("length of the runs", over_seeds(steps, geometric=True), "steps"),
    )
    detail = ""
    if falls:
        share = "an unknown share" if end.value is None else f"{100 * end.value:.2g}%"
        length = " to ".join(f"{each:,.0f}" for each in sorted({min(steps), max(steps)}))
        seeds = "" if len(falls) == arm.started else f", {len(falls)} of {arm.started} seeds"
        detail = f"{share} at {length} steps{seeds}"
    return make_part(arm.pair, "", arm.where, decided, detail, measured, arm.records)


def whatever_the_size(machine: MachineEvidence) -> list[ClaimPart]:
    """C2: a part for each pair and axis of a sweep that the pair as declared was run beside."""
    bases = {_apart_from_sweep(arm): arm for arm in augmented_arms(machine.declared)}
    sweeps: dict[tuple[tuple[Setting, str], str], list[AugmentedArm]] = defaultdict(list)
    for arm in augmented_arms(machine.records):
        axis = dict(arm.setting.variant).get("sweep")
        if axis in AXES and arm.factor not in (None, 1.0):
            sweeps[_apart_from_sweep(arm), axis].append(arm)
    return [
        _sweep_part(axis, bases[where], points)
        for (where, axis), points in sweeps.items()
        if where in bases
    ]


def _sweep_part(axis: str, base: AugmentedArm, points: Sequence[AugmentedArm]) -> ClaimPart:
    before = base.falls()
    measured = [percent(f"share at {axis} 1", over_seeds([each.end for each in before.values()]))]
    harmful, undecided, figures = [], [], []
    for point in sorted(points, key=lambda each: each.factor or 0.0):
        after = point.falls()
        name = f"{axis} {point.value}"
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
        figures.append(f"{point.value}: {_times(ratio)}")
        if (level.value or 0.0) < LEARNT:
            undecided.append(f"less than {LEARNT:.0%} is learned at {name}")
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
        (undecided, "not measured", " and ".join(undecided)),
        (
            True,
            "held",
            f"the share stays at most {SMALL_SHARE:.0%}, or within {ROBUST_FACTOR:g} times that "
            "of the pair as declared",
        ),
    )
    records = [record for arm in (base, *points) for record in arm.records]
    where = f"{base.where}, {axis}"
    return make_part(base.pair, f", {axis}", where, decided, ", ".join(figures), measured, records)


def _apart_from_sweep(arm: AugmentedArm) -> tuple[Setting, str]:
    return replace(arm.setting, sizes=(), variant=arm.switches), arm.kernels


def _times(quantity: Quantity) -> str:
    if quantity.value is None:
        return "no common seed"
    interval = "no interval"
    if quantity.low is not None and quantity.high is not None:
        interval = f"{quantity.low:.2g} to {quantity.high:.2g}"
    return f"{quantity.value:.2g} times ({interval})"
