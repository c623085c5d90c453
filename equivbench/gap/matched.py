"""What makes a share readable: each arm's loss against predictors that know nothing or little, and
its share at a matched loss.

A share changes as a model learns, so that two arms' shares compare only where their losses agree.
The losses at which they are read are those at which a quarter, a half, ... of the signal is
explained, and the highest final loss of a contestant's run, which all of them reach. They depend on
whose they are, too: of the annealed weights at the rungs, or of the weights on the way there and of
their average along the trace.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equivbench.gap.campaigns import contest_of, telling_campaign
from equivbench.gap.curves import decreasing, last_crossing
from equivbench.gap.intervals import UNKNOWN, Censored, Quantity, over_seeds
from equivbench.gap.pairing import ArmRun, Setting, arm_runs
from equivbench.records.curves import FINALS, Evaluation, ResultWeights, final_of
from equivbench.records.evaluations import implied_baseline
from equivbench.records.schema import RunRecord
from equivbench.specs import CONTESTANTS

Array = NDArray[np.float64]
EXPLAINED = (0.25, 0.5, 0.75, 0.9)
"""Parts of the signal at which shares are read."""
END = "end of the worse arm"


@dataclass(frozen=True)
class ShareReading:
    """An arm's share at one loss: known only where every finished seed came down to that loss
    during its training."""

    share: Quantity
    seeds: int
    """Finished seeds."""
    reached: int
    """Those that came down to it."""
    began_below: int
    """Those that were below it at their first evaluation, so that nothing is known of when they
    passed it."""


@dataclass(frozen=True)
class LossLevel:
    """A loss and what each arm's share was there."""

    name: str
    """``explained 50%``, or :data:`END`."""
    loss: float
    """Board metric."""
    arms: dict[str, ShareReading]


@dataclass(frozen=True)
class ArmEnd:
    """One arm at its end. ``over_best_untrained`` is its loss over that of the best predictor that
    needs no training: below 1 is better."""

    seeds: int
    finished: int
    total: Quantity
    over_best_untrained: Quantity
    explained: Quantity
    shares: dict[ResultWeights, Quantity]


@dataclass(frozen=True)
class MatchedShares:
    """All arms of a pair under one setting."""

    setting: Setting
    baseline: float | None
    """The board metric that ``explained`` is relative to."""
    linear: float | None
    """That of the best linear predictor on the same test set; None where no record has it."""
    others: dict[str, float]
    """Those of further predictors that need no training, by name."""
    arms: dict[str, ArmEnd]
    weights: ResultWeights
    """Whose the losses and shares of ``levels`` are."""
    levels: list[LossLevel]
    """Empty where fewer than two arms have a finished run."""
    notes: list[str]


def matched_shares(
    records: Sequence[RunRecord], weights: ResultWeights = "annealed"
) -> list[MatchedShares]:
    """One entry for each setting (task, pair, preset, machine, data, budget, variant) that has a
    finished run. ``weights``: whose losses and shares are read along the way."""
    settings: dict[Setting, list[RunRecord]] = defaultdict(list)
    for record in records:
        settings[Setting.of(record)].append(record)
    found = []
    for setting in sorted(settings):
        notes: list[str] = []
        arms = _arms(settings[setting], notes)
        if any(not run.diverged for runs in arms.values() for run in runs):
            found.append(_of_setting(setting, arms, weights, notes))
    return found


def _arms(records: Sequence[RunRecord], notes: list[str]) -> dict[str, list[ArmRun]]:
    """The runs of each arm of one setting, contestants first; an arm that ran on several kernel
    backends is one arm for each."""
    by_arm: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        by_arm[record.arm, record.model.kernels].append(record)
    backends = Counter(arm for arm, _ in by_arm)
    # All arms are read in the campaign that says most of the contestants, where they are in it.
    compared = [each for each in records if each.arm in CONTESTANTS]
    contests = {contest_of(each) for each in telling_campaign(compared)} if compared else set()
    arms = {}
    for arm, kernels in sorted(by_arm, key=_order):
        name = arm if backends[arm] == 1 else f"{arm} on {kernels}"
        arms[name] = list(arm_runs(arm, by_arm[arm, kernels], notes, contests).values())
    return arms


def share_at(results: Sequence[Evaluation], log_loss: float) -> tuple[float | None, Censored]:
    """The share where a run's loss came down to exp(``log_loss``) for good, or why it is unknown.

    The loss over log steps is fitted by the non-increasing curve nearest to it (as for the gap) and
    its last crossing taken; the share there is interpolated between the evaluations before and
    after, in logarithms where both are positive (at the numerical floor an unbiased share may come
    out below zero) and linearly else. Nothing is extrapolated: ``above`` means that the run never
    came down to that loss, ``below`` that it was below it at its first evaluation.
    """
    usable = [
        (math.log(each.step), math.log(each.test.total), each.test.share)
        for each in results
        if each.test.total and each.test.share is not None
    ]
    if not usable:
        return None, "above"
    log_steps, log_losses, shares = np.array(usable, dtype=np.float64).T
    where, censored = last_crossing(log_steps, decreasing(log_losses) - log_loss)
    if censored is not None:
        return None, censored
    after = int(np.searchsorted(log_steps, where))
    before = after if log_steps[after] == where else after - 1
    places, ends = log_steps[[before, after]], shares[[before, after]]
    if (ends > 0).all():
        return float(np.exp(np.interp(where, places, np.log(ends)))), None
    return float(np.interp(where, places, ends)), None


def _of_setting(
    setting: Setting, arms: dict[str, list[ArmRun]], weights: ResultWeights, notes: list[str]
) -> MatchedShares:
    finished = {arm: [run for run in runs if not run.diverged] for arm, runs in arms.items()}
    records = [run.record for runs in finished.values() for run in runs]
    baseline = _first_known(
        implied_baseline(record.final) for record in records if record.final is not None
    )
    linear = _first_known(record.baselines.get("linear") for record in records)
    if linear is None:
        notes.append("no record has the loss of the linear baseline")
    others = {name: value for name, value in records[0].baselines.items() if name != "linear"}
    return MatchedShares(
        setting=setting,
        baseline=baseline,
        linear=linear,
        others=others,
        arms={arm: _end_of(runs) for arm, runs in arms.items()},
        weights=weights,
        levels=_levels(
            {arm: [run.results(weights) for run in runs] for arm, runs in finished.items() if runs},
            baseline,
        ),
        notes=notes,
    )


def _first_known(values: Iterable[float | None]) -> float | None:
    return next((value for value in values if value is not None), None)


def _end_of(runs: Sequence[ArmRun]) -> ArmEnd:
    records = [run.record for run in runs if not run.diverged and run.record.final is not None]

    def known(name: str, weights: ResultWeights = "annealed") -> list[float]:
        tests = [final_of(record, weights) for record in records]
        values = [None if test is None else getattr(test, name) for test in tests]
        return [value for value in values if value is not None]

    return ArmEnd(
        seeds=len(runs),
        finished=len(records),
        total=over_seeds(known("total"), geometric=True),
        over_best_untrained=over_seeds(known("over_best_untrained"), geometric=True),
        explained=over_seeds(known("explained"), most=1),
        shares={
            weights: over_seeds(known("share", weights), least=0, most=1) for weights in FINALS
        },
    )


def _levels(arms: dict[str, list[list[Evaluation]]], baseline: float | None) -> list[LossLevel]:
    """The losses at which shares are read; ``arms`` are the results of the finished runs of those
    that have any."""
    if len(arms) < 2:
        return []
    contestants = [
        each for arm, runs in arms.items() if arm.split(" ")[0] in CONTESTANTS for each in runs
    ]
    everyone = [each for runs in arms.values() for each in runs]
    levels = []
    if baseline is not None:
        for part in EXPLAINED:
            levels.append((f"explained {part:.0%}", math.log((1 - part) * baseline)))
    known = [end for each in contestants or everyone if (end := log_end(each)) is not None]
    if known:
        levels.append((END, max(known)))
    return [
        LossLevel(
            name, math.exp(log_loss), {arm: _reading(runs, log_loss) for arm, runs in arms.items()}
        )
        for name, log_loss in levels
    ]


def _reading(runs: Sequence[Sequence[Evaluation]], log_loss: float) -> ShareReading:
    found = [share_at(results, log_loss) for results in runs]
    shares = [share for share, _ in found if share is not None]
    return ShareReading(
        # A mean over the seeds that happen to reach a loss would be one over the lucky ones.
        share=over_seeds(shares, least=0, most=1) if len(shares) == len(runs) else UNKNOWN,
        seeds=len(runs),
        reached=sum(censored != "above" for _, censored in found),
        began_below=sum(censored == "below" for _, censored in found),
    )


def log_end(results: Sequence[Evaluation]) -> float | None:
    """Log of the loss that the non-increasing fit of a run ends with."""
    logs = [
        math.log(each.test.total)
        for each in results
        if each.test.total and each.test.share is not None
    ]
    return float(decreasing(np.array(logs))[-1]) if logs else None


def _order(arm: tuple[str, str]) -> tuple[int, str, str]:
    """Contestants first."""
    name, kernels = arm
    return (CONTESTANTS.index(name) if name in CONTESTANTS else len(CONTESTANTS), name, kernels)
