"""The efficiency gap of each pair: which arm has the lower test loss under one budget, and how much
faster the other would have to be to tie (docs/gap.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import msgspec
import numpy as np

from equivbench.counted import counted
from equivbench.gap.breakeven import BreakEven, break_even
from equivbench.gap.campaigns import campaign_precedence, contest_of
from equivbench.gap.finals import (
    TWIRLS,
    Finals,
    TwirledLoss,
    finished,
    mean_share,
    shared_groups,
    twirled_loss,
)
from equivbench.gap.intervals import UNKNOWN, UNTIMED, Quantity, Timed, exponential, sum_of
from equivbench.gap.leads import Course, LeadChange, follow
from equivbench.gap.pairing import ArmRun, MatchedRuns, Setting, pair_up
from equivbench.gap.timing import PairedTimes, step_times
from equivbench.gap.verdicts import Contrast, verdicts
from equivbench.records.schema import RunRecord
from equivbench.specs import AUGMENTED, CONTESTANTS, EQUIVARIANT, Contestant
from equivbench.tabular import Tabular


@dataclass(frozen=True)
class PairGap(Tabular):
    """The gap of one pair under one setting. ``steady`` quantities leave compilation out,
    ``all_in`` ones count it."""

    table_factory: ClassVar[str] = "equivbench.report.gaps:one_gap_table"

    task: str
    pair: str
    preset: str
    machine_key: str
    dataset: dict[str, Any]
    rules_version: int
    budget: dict[str, Any]
    variant: dict[str, str]
    kernels: dict[str, str]
    commit: str | None
    """Of the code of the runs; a row never mixes two versions of it."""
    day: str
    """When the first of its contests began."""
    contests: list[str]
    seeds: list[int]
    n_seeds: int
    n_diverged: int
    """Seeds at which at least one arm diverged; ``diverged`` has them by arm."""
    diverged: dict[str, int]
    unfinished: list[int]
    """Further seeds, of which a run failed or was stopped."""
    apart: list[int]
    """Of ``seeds``, those whose arms did not take turns in one contest."""
    repetitions: dict[str, dict[int, list[float]]]
    """By arm and seed, the final losses of a seed that was run more than once; the first counts."""
    disturbed: str | None
    """Which of its runs did not have the machine, and why; None where all had it."""
    throughput_ratio: Timed
    """Equivariant over augmented seconds a training sample."""
    loss_equivariant: Quantity
    loss_augmented: Quantity
    loss_ratio: Quantity
    """Equivariant over augmented board metric, as measured at the end of the budget."""
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
    """The arm with the higher final loss, whose s* is the headline; None unless that is decided."""
    decided: bool
    reason: str
    """Why it is decided, or why there is no verdict."""
    p: float | None
    """Two-sided, of the paired test of the final losses."""
    p_holm: float | None
    """Corrected over all comparisons (each a pair under one setting) that could be decided."""
    seeds_needed: int | None
    """Seeds with which an effect of the size seen has an 80% chance of a verdict; None where that
    is not known, or more than a thousand."""
    lead_changes: list[LeadChange]
    """Budgets between rungs at which the lead changes hands, compilation left out."""
    notes: list[str]
    reasons: dict[str, str]
    """Why a quantity was not measured, by its name."""

    @property
    def precedence(self) -> tuple[tuple[bool, int, bool], str]:
        """How much it says beside gaps of other campaigns under its setting
        (:func:`equivbench.gap.campaigns.campaign_precedence`), and its day: the newest of equals
        counts."""
        return campaign_precedence(self.n_seeds, self.disturbed is not None), self.day

    def to_json(self) -> dict[str, Any]:
        """Plain objects: contract section 3's fields, and more."""
        plain_objects: dict[str, Any] = msgspec.to_builtins(self, str_keys=True)
        return plain_objects

    def __repr__(self) -> str:
        ratio, where = self.loss_ratio, f"{self.task}/{self.pair}, {self.preset}"
        text = "not measured" if ratio.value is None else f"{ratio.value:.3g}"
        if ratio.low is not None and ratio.high is not None:
            text += f" ({ratio.low:.3g} to {ratio.high:.3g})"
        lead = f"the {self.behind} arm is behind" if self.behind else "undecided"
        return f"<PairGap {where}, {counted(self.n_seeds, 'seed')}: loss ratio {text}, {lead}>"


class PairGaps(Tabular, list[PairGap]):
    """Gaps in their order: a list, of which a notebook shows a table and pandas gets a frame."""

    table_factory: ClassVar[str] = "equivbench.report.gaps:gap_table"


def efficiency_gap(records: Sequence[RunRecord]) -> PairGaps:
    """The efficiency gap of every pair of arms in ``records``.

    Parameters
    ----------
    records
        Run records, such as ``equivbench.load_results("results")`` gives. Records of different
        tasks, pairs, presets, machines, data, rules, budgets or variants are never mixed.

    Returns
    -------
    PairGaps
        A list, one for each setting and kernel backend under which both arms have a common seed;
        :func:`equivbench.gap.pairing.pair_up` says why others are left out. Contests of other code
        or another campaign are entries of their own. Losses are in the task's board unit. Verdicts
        are corrected over all gaps that are returned (Holm).

    Notes
    -----
    With tau the seconds a step, n* the steps at which an arm's loss L(n) comes down to the final
    loss of the other and B = n_other tau_other the budget, the break-even speed-up is

        s* = n* tau / B = (n* / n_other) (tau / tau_other),

    sample efficiency times speed. ``docs/gap.md`` explains each quantity.
    """
    return PairGaps(each.gap for each in measure_gaps(records))


@dataclass(frozen=True)
class MeasuredGap:
    """A gap with what it was read from."""

    gap: PairGap
    runs: MatchedRuns
    course: Course | None
    """Over the rungs, compilation left out; None where they are not to be compared by time."""
    contrast: Contrast


def measure_gaps(records: Sequence[RunRecord]) -> list[MeasuredGap]:
    """The gaps of :func:`efficiency_gap`, in the same order, with what they were read from."""
    return measure_matched(pair_up(records).matched)


def measure_matched(matched: Iterable[MatchedRuns]) -> list[MeasuredGap]:
    """The gaps of runs that are ``matched`` already, with the verdicts that all of them allow."""
    measured = [measure(runs) for runs in matched]
    gaps = decided([(each.gap, each.contrast) for each in measured])
    return [replace(each, gap=gap) for each, gap in zip(measured, gaps, strict=True)]


def decided(gaps: Sequence[tuple[PairGap, Contrast]]) -> PairGaps:
    """Gaps as :func:`measure` gives them, with the verdicts that all of them together allow."""
    found = verdicts([contrast for _, contrast in gaps])
    return PairGaps(
        replace(
            gap,
            behind=verdict.behind,
            decided=verdict.behind is not None,
            reason=verdict.reason,
            p=verdict.p,
            p_holm=verdict.p_holm,
            seeds_needed=verdict.seeds_needed,
        )
        for (gap, _), verdict in zip(gaps, found, strict=True)
    )


def measure(runs: MatchedRuns) -> MeasuredGap:
    """The gap of ``runs``, without a verdict: that depends on the other gaps
    (:func:`decided`)."""
    finals = Finals.of(runs)
    times = step_times(runs)
    reversed_times = times if isinstance(times, str) else times.exchanged
    course = follow(runs)
    ties = {
        EQUIVARIANT: break_even(runs, EQUIVARIANT, times),
        AUGMENTED: break_even(runs, AUGMENTED, reversed_times),
    }
    s_star, speed = _timed(ties[EQUIVARIANT], times, CONTESTANTS)
    s_star_augmented, _ = _timed(ties[AUGMENTED], reversed_times, CONTESTANTS[::-1])
    penalty = mean_share(finished(runs.augmented))

    reasons = _reasons(times, ties)
    twirl = {n: twirled_loss(n, runs, reasons) for n in TWIRLS}
    if penalty == UNKNOWN:
        reasons["symmetry_penalty"] = "no finished run of the augmented arm has a share"
    notes = [*runs.notes, *_caveats(runs)]
    if _order_turns(s_star):
        notes.append("with compilation counted the order of the arms turns round")
    pairs = zip(runs.equivariant, runs.augmented, strict=True)
    gap = PairGap(
        **_described(runs.setting),
        **_origin(runs),
        kernels=runs.kernels,
        seeds=list(runs.seeds),
        n_seeds=len(runs.seeds),
        n_diverged=sum(first.diverged or second.diverged for first, second in pairs),
        diverged={arm: sum(run.diverged for run in own) for arm, own in runs.arms.items()},
        unfinished=list(runs.unfinished),
        apart=list(runs.apart),
        repetitions=runs.repetitions,
        disturbed=runs.disturbed,
        throughput_ratio=_throughput_ratio(runs, times),
        loss_equivariant=exponential(finals.loss(EQUIVARIANT)),
        loss_augmented=exponential(finals.loss(AUGMENTED)),
        loss_ratio=exponential(finals.ratio),
        s_star_equivariant=s_star,
        s_star_augmented=s_star_augmented,
        sample_efficiency=ties[EQUIVARIANT].efficiency,
        sample_efficiency_augmented=ties[AUGMENTED].efficiency,
        speed=speed,
        symmetry_penalty=penalty,
        explained={arm: _explained(own) for arm, own in runs.arms.items()},
        epochs={
            arm: float(np.mean([run.record.epochs for run in own]))
            for arm, own in runs.arms.items()
        },
        twirl=twirl,
        behind=None,
        decided=False,
        reason="",
        p=None,
        p_holm=None,
        seeds_needed=None,
        lead_changes=[] if course is None else course.changes,
        notes=notes,
        reasons=reasons,
    )
    return MeasuredGap(gap, runs, course, Contrast.of(runs, finals))


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


def _origin(runs: MatchedRuns) -> dict[str, Any]:
    """The fields of a gap that say which contests it is of."""
    records = sorted(runs.records, key=lambda record: record.created)
    return {
        "commit": records[0].git.commit,
        "day": records[0].created[:10],
        "contests": list(dict.fromkeys(map(contest_of, records))),
    }


def _timed(tie: BreakEven, times: PairedTimes | str, arms: tuple[str, ...]) -> tuple[Timed, Timed]:
    """The s* of the first of ``arms`` against the second, and its speed, at steady state and with
    the compile seconds c and c_o counted. With the other arm's budget of B seconds,

    - s* all-in is (s* B + c) / (B + c_o);
    - speed all-in is that over the sample efficiency e: (speed B + c / e) / (B + c_o), whose error
      is that of the speed, known from step times, and that of e, known from losses.
    """
    if isinstance(times, str):
        return UNTIMED, UNTIMED
    arm, other = arms
    budget, compiling = times.train_seconds[other], times.compile_seconds[arm]
    whole = budget + times.compile_seconds[other]
    s_star = Timed(
        tie.speed_up, tie.speed_up.map(lambda value: (value * budget + compiling) / whole)
    )
    if compiling == 0:
        return s_star, Timed(times.speed, times.speed.map(lambda value: value * budget / whole))
    if not tie.efficiency.value:
        return s_star, Timed(times.speed, UNKNOWN)
    # The later the crossing, the thinner the compile seconds are spread.
    spread = tie.efficiency.map(lambda value: compiling / value / whole, falling=True)
    steady = times.speed.map(lambda value: value * budget / whole)
    return s_star, Timed(times.speed, sum_of(steady, spread))


def _throughput_ratio(runs: MatchedRuns, times: PairedTimes | str) -> Timed:
    """Equivariant over augmented seconds a sample; all-in with each arm's compile seconds spread
    over its budget."""
    if isinstance(times, str):
        return UNTIMED
    batches = [own[0].record.recipe.batch_size for own in runs.arms.values()]
    steady = times.speed.map(lambda ratio: ratio * batches[1] / batches[0])
    first, second = (
        1 + times.compile_seconds[arm] / times.train_seconds[arm] for arm in CONTESTANTS
    )
    return Timed(steady, steady.map(lambda ratio: ratio * first / second))


def _reasons(times: PairedTimes | str, ties: dict[str, BreakEven]) -> dict[str, str]:
    """Why quantities were not measured, by name; empty if all were."""
    found = {}
    if isinstance(times, str):
        timed = ("throughput_ratio", "s_star_equivariant", "s_star_augmented", "speed")
        found = dict.fromkeys(timed, times)
    names = {EQUIVARIANT: "sample_efficiency", AUGMENTED: "sample_efficiency_augmented"}
    for arm, tie in ties.items():
        if tie.efficiency == UNKNOWN:
            why = "not every finished run was evaluated on the part of the test set of the rungs"
            found |= {names[arm]: why, f"s_star_{arm}": found.get(f"s_star_{arm}", why)}
    return found


def _caveats(runs: MatchedRuns) -> list[str]:
    """What a reader must know about the losses and intervals, as sentences."""
    seeds = len(runs.seeds)
    lost = [
        f"{sum(run.diverged for run in own)} of the {arm} arm"
        for arm, own in runs.arms.items()
        if any(run.diverged for run in own)
    ]
    grouped = shared_groups([test for own in runs.arms.values() for test in finished(own)])
    notes = []
    if lost:
        notes.append(
            f"diverged: {', '.join(lost)}; medians and rank intervals over seeds stand for means"
        )
    elif seeds > 1 and not grouped:
        notes.append("no test groups shared by all runs: the intervals cover seeds only")
    if seeds == 1:
        cover = "the intervals cover the test set only" if grouped else "no intervals of the losses"
        notes.append(f"one seed: {cover}")
    for arm, own in runs.arms.items():
        extended = [run.longer is not None for run in own if not run.diverged]
        if any(extended) and not all(extended):
            notes.append(
                f"{sum(extended)} of {len(extended)} seeds of the {arm} arm were extended, so the "
                "extensions are not used"
            )
    return notes


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
