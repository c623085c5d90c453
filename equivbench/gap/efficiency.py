"""The efficiency gap of each pair: which arm has the lower test loss under one budget, and how much
faster the other would have to be to tie (docs/gap.md)."""

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
from equivbench.gap.finals import TWIRLS, FinalErrors, FinalLosses, TwirledLoss, twirled_loss
from equivbench.gap.intervals import (
    UNKNOWN,
    UNTIMED,
    Quantity,
    Timed,
    exponential,
    geometric_mean,
)
from equivbench.gap.leads import NO_LEAD, Course, Lead, LeadChange, behind_at, claim_leads, follow
from equivbench.gap.pairing import ARMS, ArmRun, Contestant, MatchedRuns, Setting, pair_up
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
    """The arm whose s* is the headline: the one that the interval of the loss ratio puts behind, if
    it decides; never from one seed."""
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
    """The efficiency gap of every pair of arms in ``records``.

    Parameters
    ----------
    records
        Run records, such as ``equivbench.load_results("results")`` gives. Records of different
        tasks, pairs, presets, machines, data, rules, budgets or variants are never mixed.

    Returns
    -------
    list of PairGap
        One for each setting and kernel backend under which both arms have a common seed;
        :func:`equivbench.gap.pairing.pair_up` says why others are left out. Losses are in the
        task's board unit. Leads are corrected over all gaps that are returned (Holm).

    Notes
    -----
    With tau the seconds a step, n* the steps at which an arm's loss L(n) comes down to the final
    loss of the other and B = n_other tau_other the budget, the break-even speed-up is

        s* = n* tau / B = (n* / n_other) (tau / tau_other),

    sample efficiency times speed. ``docs/gap.md`` explains each quantity.
    """
    return [each.gap for each in measure_gaps(records)]


@dataclass(frozen=True)
class MeasuredGap:
    """A gap with what it was read from."""

    gap: PairGap
    runs: MatchedRuns
    finals: FinalLosses
    curves: CurvePair
    """The equivariant arm against the augmented one."""
    course: Course | None
    """Over the budget, compilation left out; None without step times or curves."""


def measure_gaps(records: Sequence[RunRecord]) -> list[MeasuredGap]:
    """The gaps of :func:`efficiency_gap`, in the same order, with what they were read from."""
    measured = [_measure(runs) for runs in pair_up(records).matched]
    ratios = [each.finals.ratio for each in measured]
    leads = claim_leads(
        [
            (ratio, each.gap.n_seeds, each.runs.undecidable)
            for ratio, each in zip(ratios, measured, strict=True)
        ]
    )
    gaps = [
        replace(
            each.gap,
            lead=lead,
            # One seed cannot tell an arm from its luck.
            behind=behind_at(ratio)
            if each.runs.undecidable is None and each.gap.n_seeds > 1
            else None,
        )
        for each, lead, ratio in zip(measured, leads, ratios, strict=True)
    ]
    return [replace(each, gap=gap) for each, gap in zip(measured, _with_scaling(gaps), strict=True)]


def _measure(runs: MatchedRuns) -> MeasuredGap:
    """The gap of ``runs``, but for what needs the other gaps: its lead and its scaling."""
    setting, by_arm = runs.setting, {"equivariant": runs.equivariant, "augmented": runs.augmented}
    draws = group_draws([*runs.equivariant, *runs.augmented])
    equivariant = arm_curve(runs.equivariant, setting, draws)
    augmented = arm_curve(runs.augmented, setting, draws)
    curves = CurvePair(equivariant, augmented, setting.budget_kind == "seconds")
    course = follow(curves)
    finals = FinalLosses.of(runs, draws)
    final = FinalErrors.of(runs.augmented, draws)
    s_star, sample_efficiency, speed = _break_even(curves)
    s_star_augmented, sample_efficiency_augmented, _ = _break_even(curves.exchanged)
    symmetry_penalty = final.mean(lambda total, equivariance: equivariance / total)

    reasons = _untimed_reasons(curves)
    twirl = {n: twirled_loss(n, runs, final, reasons) for n in TWIRLS}
    if symmetry_penalty == UNKNOWN:
        reasons["symmetry_penalty"] = "no finished run of the augmented arm has a share"
    notes = [*runs.notes, *caveats({"equivariant": equivariant, "augmented": augmented}, draws)]
    if runs.undecidable is not None:
        notes.append(f"no verdict: {runs.undecidable}")
    if _order_turns(s_star):
        notes.append("with compilation counted the order of the arms turns round")
    pairs = zip(runs.equivariant, runs.augmented, strict=True)
    gap = PairGap(
        **_described(setting),
        kernels=runs.kernels,
        seeds=list(runs.seeds),
        n_seeds=len(runs.seeds),
        n_diverged=sum(first.diverged or second.diverged for first, second in pairs),
        diverged={arm: sum(run.diverged for run in by_arm[arm]) for arm in ARMS},
        throughput_ratio=_throughput_ratio(equivariant, augmented),
        loss_equivariant=exponential(finals.equivariant),
        loss_augmented=exponential(finals.augmented),
        loss_ratio=exponential(finals.ratio),
        s_star_equivariant=s_star,
        s_star_augmented=s_star_augmented,
        sample_efficiency=sample_efficiency,
        sample_efficiency_augmented=sample_efficiency_augmented,
        speed=speed,
        symmetry_penalty=symmetry_penalty,
        explained={arm: _explained(by_arm[arm]) for arm in ARMS},
        epochs={arm: float(np.mean([run.record.epochs for run in by_arm[arm]])) for arm in ARMS},
        twirl=twirl,
        behind=None,
        lead=NO_LEAD,
        lead_changes=[] if course is None else course.changes,
        scaling=None,
        notes=notes,
        reasons=reasons,
    )
    return MeasuredGap(gap, runs, finals, curves, course)


def _described(setting: Setting) -> dict[str, Any]:
    """The fields of a gap that say what was compared."""
    return {
        "task": setting.task,
        "pair": setting.pair,
        "preset": setting.preset,
        "machine_key": setting.machine_key,
        "dataset": {
            "name": setting.dataset,
            "sha256": setting.dataset_sha256,
            "sizes": dict(setting.sizes),
        },
        "rules_version": setting.rules_version,
        "budget": {"kind": setting.budget_kind, "limit": setting.budget_limit},
        "variant": dict(setting.variant),
    }


def _break_even(pair: CurvePair) -> tuple[Timed, Quantity, Timed]:
    """The arm's s*, its sample efficiency, and the speed that is the quotient of the two.

    With the crossing at n* steps, the other arm's n_o steps of tau_o seconds (B = n_o tau_o) and
    compile seconds c and c_o:

    - sample efficiency n* / n_o;
    - s* = n* tau / B, all-in (n* tau + c) / (B + c_o);
    - speed tau / tau_o, all-in (tau + c / n*) n_o / (B + c_o).
    """
    arm, other = pair.arm, pair.other
    crossing = pair.break_even()
    efficiency = crossing.steps.map(lambda log_steps: _exp(log_steps) / other.steps)
    if arm.tau is None or other.tau is None:
        return UNTIMED, UNKNOWN if pair.timed_budget else efficiency, UNTIMED
    tau, budget = arm.tau, other.steps * other.tau
    budget_all_in = budget + other.compile_seconds
    s_star = Timed(
        steady=crossing.time.map(lambda log_steps: _exp(log_steps) * tau / budget),
        all_in=crossing.time.map(
            lambda log_steps: (_exp(log_steps) * tau + arm.compile_seconds) / budget_all_in
        ),
    )
    speed = geometric_mean(arm.jitter - other.jitter).map(
        lambda ratio: ratio * tau / (budget / other.steps)
    )
    if arm.compile_seconds == 0:
        return s_star, efficiency, Timed(speed, speed.map(lambda r: r * budget / budget_all_in))
    # The later the crossing, the thinner the compile seconds are spread: speed falls where steps
    # rise.
    speed_all_in = crossing.steps.map(
        lambda log_steps: (
            (tau + arm.compile_seconds / _exp(log_steps)) * other.steps / budget_all_in
        ),
        falling=True,
    )
    return s_star, efficiency, Timed(speed, speed_all_in)


def _exp(log_steps: float) -> float:
    # By numpy, which gives infinity where math.exp raises.
    return float(np.exp(log_steps))


def _throughput_ratio(equivariant: ArmCurve, augmented: ArmCurve) -> Timed:
    """Equivariant over augmented seconds a sample; all-in with each arm's compile seconds spread
    over its budget."""
    if equivariant.tau is None or augmented.tau is None:
        return UNTIMED
    per_sample = (equivariant.tau / equivariant.batch_size) / (augmented.tau / augmented.batch_size)
    steady = geometric_mean(equivariant.jitter - augmented.jitter).map(
        lambda ratio: ratio * per_sample
    )
    first = 1 + equivariant.compile_seconds / (equivariant.steps * equivariant.tau)
    second = 1 + augmented.compile_seconds / (augmented.steps * augmented.tau)
    return Timed(steady, steady.map(lambda ratio: ratio * first / second))


def _untimed_reasons(curves: CurvePair) -> dict[str, str]:
    """Why the quantities that need a step time were not measured, by name; empty if they were."""
    arms = {"equivariant": curves.arm, "augmented": curves.other}
    untimed = [arm for arm, curve in arms.items() if curve.tau is None]
    if not untimed:
        return {}
    names = ["throughput_ratio", "s_star_equivariant", "s_star_augmented", "speed"]
    if curves.timed_budget:
        names += ["sample_efficiency", "sample_efficiency_augmented"]
    reason = (
        f"the step time of the {' and '.join(untimed)} arm was not measured "
        "(throughput.samples_per_second is null)"
    )
    return dict.fromkeys(names, reason)


def _order_turns(s_star: Timed) -> bool:
    """Whether the arm that leads at steady state is behind with compilation counted."""
    steady, all_in = s_star.steady.value, s_star.all_in.value
    if not steady or not all_in or s_star.steady.censored is not None:
        return False
    return (steady - 1) * (all_in - 1) < 0


def _explained(runs: Sequence[ArmRun]) -> float | None:
    finals = [run.record.final for run in runs if run.record.final]
    known = [final.explained for final in finals if final.explained is not None]
    return float(np.mean(known)) if known else None


def _with_scaling(gaps: Sequence[PairGap]) -> list[PairGap]:
    """``gaps`` with ``scaling`` filled in where the same setting was run at three or more budgets
    of one kind."""
    series: dict[str, list[PairGap]] = defaultdict(list)
    for gap in gaps:
        if gap.loss_equivariant.value is not None and gap.loss_augmented.value is not None:
            series[_apart_from_budget(gap)].append(gap)
    fits = {name: _scaling(members) for name, members in series.items() if len(members) >= ENOUGH}
    return [replace(gap, scaling=fits.get(_apart_from_budget(gap))) for gap in gaps]


def _scaling(members: Sequence[PairGap]) -> dict[str, PowerLaw]:
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
