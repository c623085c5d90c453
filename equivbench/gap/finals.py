"""What the final evaluations alone say: the measured losses of both arms and their ratio, whether
they are past predictors that need no training, and what averaging over rotations at test time would
give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equivbench.gap.curves import log_influence
from equivbench.gap.intervals import (
    UNKNOWN,
    Band,
    Component,
    Quantity,
    exponential,
    geometric_mean,
    group_part,
    plain,
    ranked,
    student,
)
from equivbench.gap.pairing import ArmRun, MatchedRuns
from equivbench.records.schema import GroupErrors, RunRecord, Test
from equivbench.specs import CONTESTANTS

Array = NDArray[np.float64]
TWIRLS = (2, 4, 8)


@dataclass(frozen=True)
class TwirledLoss:
    """The augmented arm averaged over n random rotations at test time."""

    loss: Quantity
    """M + V/n, in the unit of the board metric."""
    cost: Quantity
    """Its seconds a sample over those of the equivariant arm, both at inference."""


def shared_groups(tests: Sequence[Test]) -> bool:
    """Whether all ``tests`` have the same two or more test groups."""
    weights = [None if test.groups is None else test.groups.weights for test in tests]
    first = weights[0] if weights else None
    return first is not None and len(first) > 1 and all(each == first for each in weights)


@dataclass(frozen=True)
class Finals:
    """The logs of the final losses of both arms, measured on the whole test set, seed by seed.

    Nothing is read off a curve here: these are the losses that the records, the board and ``run``
    show.
    """

    logs: dict[str, Array]
    """By arm [S]; infinite where a seed diverged."""
    influence: dict[str, Array]
    """By arm [S, G]: how much each test group moves each; G = 0 where not all share the groups."""
    over_untrained: dict[str, Array]
    """By arm, of the seeds where it is known: log of the loss over that of the best predictor that
    needs no training."""

    @classmethod
    def of(cls, runs: MatchedRuns) -> Finals:
        """Those of ``runs``."""
        grouped = shared_groups([test for own in runs.arms.values() for test in finished(own)])
        return cls(
            logs={
                arm: np.array([_log_final(run) for run in own]) for arm, own in runs.arms.items()
            },
            influence={
                arm: np.array(
                    [log_influence(test.groups if grouped else None) for test in finished(own)]
                )
                for arm, own in runs.arms.items()
            },
            over_untrained={
                arm: np.log(
                    [
                        over
                        for run in own
                        if not run.diverged and (over := _over_best_untrained(run.record))
                    ]
                )
                for arm, own in runs.arms.items()
            },
        )

    def loss(self, arm: str) -> Band:
        """The mean over seeds of the arm's log losses; of their medians where some diverged."""
        return mean_over_seeds(self.logs[arm], self.influence[arm])

    @property
    def ratio(self) -> Band:
        """Log of the equivariant over the augmented loss, paired by seed."""
        first, second = (self.logs[arm] for arm in CONTESTANTS)
        # A seed that both arms failed says nothing about which is better.
        known = np.isfinite(first) | np.isfinite(second)
        with np.errstate(invalid="ignore"):
            logs = (first - second)[known]
        one, other = (self.influence[arm] for arm in CONTESTANTS)
        return mean_over_seeds(logs, one - other if len(one) == len(other) == len(logs) else None)

    @property
    def differences(self) -> Array:
        """[S]: the log ratios of the seeds that both arms finished."""
        first, second = (self.logs[arm] for arm in CONTESTANTS)
        known = np.isfinite(first) & np.isfinite(second)
        return np.asarray(first[known] - second[known])

    def not_past_untrained(self) -> list[str]:
        """The arms whose loss is not below that of the best predictor that needs no training by
        more than its interval."""
        low = []
        for arm, logs in self.over_untrained.items():
            influence = self.influence[arm]
            band = mean_over_seeds(logs, influence if len(influence) == len(logs) else None)
            if len(logs) and not band.high[0] < 0:
                low.append(arm)
        return low


def finished(runs: Sequence[ArmRun]) -> list[Test]:
    """The final evaluations of the seeds that finished."""
    return [run.record.final for run in runs if not run.diverged and run.record.final is not None]


def _log_final(run: ArmRun) -> float:
    final = run.record.final
    return math.inf if run.diverged or final is None else math.log(final.total or 0.0)


def _over_best_untrained(record: RunRecord) -> float | None:
    final = record.final
    if final is None or final.over_best_untrained is not None:
        return None if final is None else final.over_best_untrained
    known = [loss for loss in record.baselines.values() if loss > 0]
    return final.total / min(known) if known and final.total else None


def mean_over_seeds(logs: Array, influence: Array | None) -> Band:
    """The mean of ``logs`` [S] with its interval, ``influence`` [S, G]; medians and ranks where
    some are infinite, unknown with none."""
    if not len(logs):
        nothing = np.full(1, np.nan)
        return Band(nothing, nothing, nothing, nothing)
    if not np.isfinite(logs).all():
        return ranked(logs[:, None])
    return student(logs.mean(keepdims=True), logs[:, None], *_groups(influence))


def _groups(influence: Array | None) -> list[Component]:
    if influence is None or not influence.size:
        return []
    return [group_part(influence.mean(axis=0)[:, None])]


def mean_loss(tests: Sequence[Test]) -> Quantity:
    """The geometric mean of the totals of ``tests``, one a seed; its interval is over seeds and,
    where all share them, test groups."""
    logs = np.log(np.array([test.total for test in tests], dtype=np.float64))
    influence = None
    if shared_groups(tests):
        influence = np.array([log_influence(test.groups) for test in tests])
    return exponential(mean_over_seeds(logs, influence))


def mean_share(tests: Sequence[Test]) -> Quantity:
    """The mean over ``tests``, one a seed, of the equivariance error as a share of the total; its
    interval is over seeds and, where all share them, test groups."""
    tests = [test for test in tests if test.total and test.equivariance is not None]
    if not tests:
        return UNKNOWN
    shares = np.array([(test.equivariance or 0.0) / (test.total or 1.0) for test in tests])
    influence = None
    if shared_groups(tests):
        influence = np.array([_share_influence(test.groups) for test in tests if test.groups])
    return plain(student(shares.mean(keepdims=True), shares[:, None], *_groups(influence)), 0, 1)


def _share_influence(groups: GroupErrors) -> Array:
    """[G]: how each group moves V / T, both weighted means over groups: by
    w (v - t V/T) / (T sum of w)."""
    weights, total, equivariance = map(
        np.asarray, (groups.weights, groups.total, groups.equivariance)
    )
    whole = weights @ total
    return np.asarray(weights * (equivariance - total * (weights @ equivariance) / whole) / whole)


def averaged_loss(test: Test, n: int) -> float | None:
    """The board metric to be expected of predictions that are averaged over ``n`` rotations: total
    - V + V/n on average over their choice (V: equivariance error of ``test``). It can come out
    below zero, where V, an estimate, is above the total. None where it was not measured."""
    if test.total is None or n == 1:
        return test.total
    return None if test.equivariance is None else test.total - (1 - 1 / n) * test.equivariance


def twirled_loss(n: int, runs: MatchedRuns, reasons: dict[str, str]) -> TwirledLoss:
    """The augmented arm at its end, averaged over ``n`` rotations (:func:`averaged_loss`).

    What was not measured is put into ``reasons``.
    """
    tests = [test for test in finished(runs.augmented) if test.equivariance is not None]
    losses = [averaged_loss(test, n) or 0.0 for test in tests]
    loss = UNKNOWN
    if losses and min(losses) > 0:
        influence = None
        if shared_groups(tests):
            influence = np.array([log_influence(test.groups, 1 - 1 / n) for test in tests])
        loss = exponential(mean_over_seeds(np.log(losses), influence))
    else:
        reasons[f"twirl.{n}.loss"] = (
            "no finished run of the augmented arm has a decomposed final evaluation"
            if not losses
            else "a symmetry error as large as the loss leaves nothing to average"
        )
    rates = [
        (first.record.inference.samples_per_second, second.record.inference.twirl.get(str(n)))
        for first, second in zip(runs.equivariant, runs.augmented, strict=True)
    ]
    logs = np.array([np.log(first / second) for first, second in rates if first and second])
    if not len(logs):
        reasons[f"twirl.{n}.cost"] = (
            f"no seed has the inference rates of both arms (augmented: averaged over {n} rotations)"
        )
        return TwirledLoss(loss, UNKNOWN)
    return TwirledLoss(loss, geometric_mean(logs))
