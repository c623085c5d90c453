"""What the final evaluations alone say: means over finished seeds of functions of both error parts,
and test-time twirling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equivbench.gap.arm_curve import final_groups, group_means
from equivbench.gap.intervals import UNKNOWN, Quantity, Resampled, exponential, plain, student
from equivbench.gap.pairing import ArmRun, MatchedRuns

Array = NDArray[np.float64]
TWIRLS = (2, 4, 8)


@dataclass(frozen=True)
class TwirledLoss:
    """The augmented arm averaged over n random rotations at test time."""

    loss: Quantity
    """M + V/n, in the unit of the board metric."""
    cost: Quantity
    """Its seconds a sample over those of the equivariant arm, both at inference."""


@dataclass(frozen=True)
class Final:
    """Final errors of the finished seeds that have both parts: ``total`` and ``equivariance`` [S],
    and with the test groups drawn anew [S, R] (None where groups are not shared)."""

    total: Array
    equivariance: Array
    drawn: tuple[Array, Array] | None
    groups: int

    @classmethod
    def of(cls, runs: Sequence[ArmRun], draws: Array | None) -> Final:
        """Those of ``runs``, and with ``draws`` [R, G] of the test groups."""
        known = [
            (run.record, final.total, final.equivariance)
            for run in runs
            if not run.diverged
            and (final := run.record.final)
            and final.total
            and final.equivariance is not None
        ]
        groups = [
            each for each in (final_groups(record) for record, _, _ in known) if each is not None
        ]
        drawn = None
        if draws is not None and known and len(groups) == len(known):
            total = np.array(
                [group_means(each.total, each.weights, draws)[1:, 0] for each in groups]
            )
            equivariance = np.array(
                [group_means(each.equivariance, each.weights, draws)[1:, 0] for each in groups]
            )
            drawn = total, equivariance
        values = np.array(
            [(total, equivariance) for _, total, equivariance in known], dtype=np.float64
        ).reshape(-1, 2)
        return cls(values[:, 0], values[:, 1], drawn, 0 if draws is None else draws.shape[1])

    def mean(self, function: Callable[[Array, Array], Array]) -> Quantity:
        """Mean over seeds of ``function(total, equivariance)``."""
        if not len(self.total):
            return UNKNOWN
        values = function(self.total, self.equivariance)
        resampled = None
        if self.drawn is not None:
            resampled = Resampled(function(*self.drawn).mean(axis=0)[:, None], self.groups)
        return plain(student(values.mean(keepdims=True), values[:, None], resampled))


def twirl_at(n: int, comparison: MatchedRuns, final: Final, reasons: dict[str, str]) -> TwirledLoss:
    """The augmented arm, ``final`` at its end, averaged over ``n`` rotations; what was not measured
    is put into ``reasons``."""
    loss = final.mean(lambda total, equivariance: total - equivariance + equivariance / n)
    if loss == UNKNOWN:
        reasons[f"twirl.{n}.loss"] = (
            "no finished run of the augmented arm has a decomposed final evaluation"
        )
    rates = [
        (first.record.inference.samples_per_second, second.record.inference.twirl.get(str(n)))
        for first, second in zip(comparison.equivariant, comparison.augmented, strict=True)
    ]
    logs = np.array([np.log(first / second) for first, second in rates if first and second])
    if not len(logs):
        reasons[f"twirl.{n}.cost"] = (
            f"no seed has the inference rates of both arms (augmented: averaged over {n} rotations)"
        )
        return TwirledLoss(loss, UNKNOWN)
    return TwirledLoss(loss, log_mean(logs))


def log_mean(logs: Array) -> Quantity:
    """exp of the mean of ``logs`` [S], with its Student interval."""
    return exponential(student(logs.mean(keepdims=True), logs[:, None], None))
