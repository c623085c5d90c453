"""The efficiency gap of each pair: which arm has the lower test loss under one budget, and how much
faster the other would have to be to tie (design.md, "The efficiency gap")."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from equivbench.gap.arm_curve import ArmCurve, arm_curve, caveats, group_draws
from equivbench.gap.breakeven import CurvePair
from equivbench.gap.finals import TWIRLS, Final, TwirledLoss, log_mean, twirl_at
from equivbench.gap.intervals import UNKNOWN, UNTIMED, Band, Quantity, Timed, exponential
from equivbench.gap.leads import NO_LEAD, Course, Lead, LeadChange, behind_at, claim_leads, follow
from equivbench.gap.pairing import ARMS, AUGMENTED, EQUIVARIANT, Contestant, MatchedRuns, pair_up
from equivbench.gap.power_laws import ENOUGH, PowerLaw, power_law
from equivbench.records.schema import RunRecord

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PairGap:
    """The gap of one pair under one setting. ``steady`` quantities leave compilation out,
    ``all_in`` ones count it."""

    task: str
    pair: str
    preset: str
    machine_key: str
    dataset: dict[str, Any]
    rules_version: int
    budget: dict[str, Any]
    variant: dict[str, str]
    kernels: dict[str, str]
    seeds: list[int]
    n_seeds: int
    n_diverged: int
    """Seeds at which at least one arm diverged; ``diverged`` has them by arm."""
    diverged: dict[str, int]
    throughput_ratio: Timed
    """Equivariant over augmented seconds a training sample."""
    loss_equivariant: Quantity
    loss_augmented: Quantity
    loss_ratio: Quantity
    """Equivariant over augmented board metric, each at its budget."""
    s_star_equivariant: Timed
    """How much faster the equivariant arm must become to tie; below 1 it leads and could be 1/s*
    slower."""
    s_star_augmented: Timed
    sample_efficiency: Quantity
    """Equivariant steps to the augmented arm's loss, over the augmented arm's steps; times
    ``speed`` it is s*."""
    sample_efficiency_augmented: Quantity
    speed: Timed
    """Equivariant over augmented seconds a step; all-in with each arm's compile seconds spread over
    the steps it takes."""
    symmetry_penalty: Quantity
    """The augmented arm's equivariance error as a share of its total, at the end."""
    explained: dict[str, float | None]
    epochs: dict[str, float]
    twirl: dict[int, TwirledLoss]
    behind: Contestant | None
    """The arm whose s* is the headline: the one that the interval at equal time puts behind, if it
    decides."""
    lead: Lead
    lead_changes: list[LeadChange]
    """Budgets below this one at which the lead changes hands, compilation left out."""
    scaling: dict[str, PowerLaw] | None
    notes: list[str]
    reasons: dict[str, str]
    """Why a quantity was not measured, by its name."""

    def to_json(self) -> dict[str, Any]:
        """Plain objects: contract section 3's fields, and more."""
        plain_objects: dict[str, Any] = msgspec.to_builtins(self, str_keys=True)
        return plain_objects


def efficiency_gap(records: Sequence[RunRecord]) -> list[PairGap]:
    """One gap per task, pair, preset, machine, data, rules version, budget, variant and kernels;
    nothing is ever mixed.

    Pairs of which only one arm (or no common seed) is there are left out;
    :func:`equivbench.gap.pairing.pair_up` says why. Leads are corrected over all gaps that are
    returned (Holm).
    """
    return [each.gap for each in measure_gaps(records)]


@dataclass(frozen=True)
class MeasuredGap:
    """A gap, the contest it was read from (the equivariant arm as chaser) and its course over the
    budget, compilation left out (None without step times or curves)."""

    gap: PairGap
    runs: MatchedRuns
    curves: CurvePair
    course: Course | None


def measure_gaps(records: Sequence[RunRecord]) -> list[MeasuredGap]:
    """The gaps of :func:`efficiency_gap`, in the same order, with what they were read from."""
    measured = [_gap(comparison) for comparison in pair_up(records).matched]
    leads = claim_leads([(equal_time, each.gap.n_seeds) for each, equal_time in measured])
    gaps = fit_scaling(
        [replace(each.gap, lead=lead) for (each, _), lead in zip(measured, leads, strict=True)]
    )
    return [replace(each, gap=gap) for (each, _), gap in zip(measured, gaps, strict=True)]


def _gap(comparison: MatchedRuns) -> tuple[MeasuredGap, Band]:
    setting = comparison.setting
    runs = {EQUIVARIANT: comparison.equivariant, AUGMENTED: comparison.augmented}
    notes, reasons = list(comparison.notes), dict[str, str]()
    draws = group_draws([*comparison.equivariant, *comparison.augmented])
    equivariant, augmented = (arm_curve(runs[arm], setting, draws) for arm in ARMS)
    contest = CurvePair(equivariant, augmented, setting.budget_kind == "seconds")
    diverged = {arm: sum(run.diverged for run in runs[arm]) for arm in ARMS}
    pairs = zip(comparison.equivariant, comparison.augmented, strict=True)
    n_diverged = sum(first.diverged or second.diverged for first, second in pairs)
    notes += caveats(dict(zip(ARMS, (equivariant, augmented), strict=True)), draws)

    s_star, sample_efficiency, speed = _break_even(contest)
    s_star_augmented, sample_efficiency_augmented, _ = _break_even(contest.exchanged)
    if equivariant.tau is None or augmented.tau is None:
        untimed = " and ".join(
            arm
            for arm, each in zip(ARMS, (equivariant, augmented), strict=True)
            if each.tau is None
        )
        for name in ("throughput_ratio", "s_star_equivariant", "s_star_augmented", "speed"):
            reasons[name] = (
                f"the step time of the {untimed} arm was not measured (throughput.samples_per_second is null)"
            )
        if contest.timed_budget:
            reasons["sample_efficiency"] = reasons["sample_efficiency_augmented"] = reasons["speed"]
    equal_time = contest.at_equal_time()
    course = follow(contest)
    final = Final.of(comparison.augmented, draws)
    gap = PairGap(
        task=setting.task,
        pair=setting.pair,
        preset=setting.preset,
        machine_key=setting.machine_key,
        dataset={
            "name": setting.dataset,
            "sha256": setting.dataset_sha256,
            "sizes": dict(setting.sizes),
        },
        rules_version=setting.rules_version,
        budget={"kind": setting.budget_kind, "limit": setting.budget_limit},
        variant=dict(setting.variant),
        kernels=comparison.kernels,
        seeds=list(comparison.seeds),
        n_seeds=len(comparison.seeds),
        n_diverged=n_diverged,
        diverged=diverged,
        throughput_ratio=_throughput_ratio(equivariant, augmented),
        loss_equivariant=exponential(equivariant.loss()),
        loss_augmented=exponential(augmented.loss()),
        loss_ratio=exponential(contest.loss_ratio()),
        s_star_equivariant=s_star,
        s_star_augmented=s_star_augmented,
        sample_efficiency=sample_efficiency,
        sample_efficiency_augmented=sample_efficiency_augmented,
        speed=speed,
        symmetry_penalty=final.mean(lambda total, equivariance: equivariance / total),
        explained={
            arm: _mean([run.record.final.explained for run in runs[arm] if run.record.final])
            for arm in ARMS
        },
        epochs={arm: float(np.mean([run.record.epochs for run in runs[arm]])) for arm in ARMS},
        twirl={n: twirl_at(n, comparison, final, reasons) for n in TWIRLS},
        behind=behind_at(equal_time),
        lead=NO_LEAD,
        lead_changes=[] if course is None else course.changes,
        scaling=None,
        notes=notes,
        reasons=reasons,
    )
    steady, all_in = s_star.steady.value, s_star.all_in.value
    if steady and all_in and s_star.steady.censored is None and (steady - 1) * (all_in - 1) < 0:
        notes.append("with compilation counted the order of the arms turns round")
    if gap.symmetry_penalty == UNKNOWN:
        reasons["symmetry_penalty"] = "no finished run of the augmented arm has a share"
    return MeasuredGap(gap, comparison, contest, course), equal_time


def _break_even(contest: CurvePair) -> tuple[Timed, Quantity, Timed]:
    """The chaser's s*, its sample efficiency, and the speed that is the quotient of the two."""
    chaser, target = contest.chaser, contest.target
    crossing = contest.break_even()
    efficiency = crossing.steps.map(lambda log_steps: float(np.exp(log_steps)) / target.steps)
    if chaser.tau is None or target.tau is None:
        return UNTIMED, UNKNOWN if contest.timed_budget else efficiency, UNTIMED
    tau, budget = chaser.tau, target.steps * target.tau
    spread = budget + target.compile_seconds
    s_star = Timed(
        crossing.time.map(lambda log_steps: float(np.exp(log_steps)) * tau / budget),
        crossing.time.map(
            lambda log_steps: (float(np.exp(log_steps)) * tau + chaser.compile_seconds) / spread
        ),
    )
    steady = log_mean(chaser.jitter - target.jitter).map(
        lambda ratio: ratio * tau / (budget / target.steps)
    )
    if chaser.compile_seconds > 0:
        # The later the crossing, the thinner the compile seconds are spread: speed falls where
        # steps rise.
        all_in = crossing.steps.map(
            lambda log_steps: (
                (tau + chaser.compile_seconds / float(np.exp(log_steps))) * target.steps / spread
            ),
            falling=True,
        )
    else:
        all_in = steady.map(lambda ratio: ratio * budget / spread)
    return s_star, efficiency, Timed(steady, all_in)


def _throughput_ratio(equivariant: ArmCurve, augmented: ArmCurve) -> Timed:
    if equivariant.tau is None or augmented.tau is None:
        return UNTIMED
    per_sample = (equivariant.tau / equivariant.batch_size) / (augmented.tau / augmented.batch_size)
    steady = log_mean(equivariant.jitter - augmented.jitter).map(lambda ratio: ratio * per_sample)
    overhead = [
        1 + each.compile_seconds / (each.steps * tau)
        for each, tau in ((equivariant, equivariant.tau), (augmented, augmented.tau))
    ]
    return Timed(steady, steady.map(lambda ratio: ratio * overhead[0] / overhead[1]))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def fit_scaling(gaps: Sequence[PairGap]) -> list[PairGap]:
    """``gaps`` with ``scaling`` filled in where the same setting was run at three or more budgets
    of one kind."""
    series: dict[str, list[PairGap]] = defaultdict(list)
    for gap in gaps:
        if gap.loss_equivariant.value is not None and gap.loss_augmented.value is not None:
            series[_apart_from_budget(gap)].append(gap)
    fits = {name: _fit(members) for name, members in series.items() if len(members) >= ENOUGH}
    return [replace(gap, scaling=fits.get(_apart_from_budget(gap))) for gap in gaps]


def _fit(members: Sequence[PairGap]) -> dict[str, PowerLaw]:
    budgets = [float(gap.budget["limit"]) for gap in members]
    losses = {
        "equivariant": [gap.loss_equivariant.value for gap in members],
        "augmented": [gap.loss_augmented.value for gap in members],
    }
    return {
        arm: power_law(budgets, [value for value in values if value is not None])
        for arm, values in losses.items()
    }


def _apart_from_budget(gap: PairGap) -> str:
    where = (gap.task, gap.pair, gap.preset, gap.machine_key, gap.rules_version, gap.budget["kind"])
    return repr((where, gap.dataset, sorted(gap.variant.items()), sorted(gap.kernels.items())))
