"""What the final evaluations alone say: means over finished seeds of functions of both error parts,
and what averaging over rotations at test time would give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equivbench.gap.arm_curve import final_groups, group_means
from equivbench.gap.intervals import (
    UNKNOWN,
    Band,
    Quantity,
    Resampled,
    geometric_mean,
    plain,
    ranked,
    student,
)
from equivbench.gap.pairing import ArmRun, MatchedRuns
from equivbench.records.schema import GroupErrors

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
class FinalErrors:
    """Final errors of the finished seeds that have both parts."""

    total: Array
    """[S]"""
    equivariance: Array
    """[S]"""
    drawn: tuple[Array, Array] | None
    """Both with the test groups drawn anew, [S, R]; None where groups are not shared."""
    groups: int

    @classmethod
    def of(cls, runs: Sequence[ArmRun], draws: Array | None) -> FinalErrors:
        """Those of ``runs``, and with ``draws`` [R, G] of the test groups."""
        known = [
            (run.record, final.total, final.equivariance)
            for run in runs
            if not run.diverged
            and (final := run.record.final)
            and final.total
            and final.equivariance is not None
        ]
        groups = [final_groups(record) for record, _, _ in known]
        return cls(
            np.array([total for _, total, _ in known], dtype=np.float64),
            np.array([equivariance for _, _, equivariance in known], dtype=np.float64),
            None if draws is None else _drawn(groups, draws),
            0 if draws is None else draws.shape[1],
        )

    def mean(self, function: Callable[[Array, Array], Array]) -> Quantity:
        """Mean over seeds of ``function(total, equivariance)``."""
        if not len(self.total):
            return UNKNOWN
        values = function(self.total, self.equivariance)
        resampled = None
        if self.drawn is not None:
            resampled = Resampled(function(*self.drawn).mean(axis=0)[:, None], self.groups)
        return plain(student(values.mean(keepdims=True), values[:, None], resampled))


@dataclass(frozen=True)
class FinalLosses:
    """Measured final losses of both arms, seed by seed: the log of the board metric, as one point.

    Nothing is read off a curve here: these are the losses that the records, the board and ``run``
    show.
    """

    equivariant: Band
    augmented: Band
    ratio: Band
    """Equivariant over augmented, of arms with the same seed."""

    @classmethod
    def of(cls, runs: MatchedRuns, draws: Array | None) -> FinalLosses:
        """Those of ``runs``, with ``draws`` [R, G] of the test groups."""
        (first, first_drawn), (second, second_drawn) = (
            _log_finals(each, draws) for each in (runs.equivariant, runs.augmented)
        )
        groups = 0 if draws is None else draws.shape[1]
        both = None
        if first_drawn is not None and second_drawn is not None:
            both = first_drawn - second_drawn
        # A seed that both arms failed says nothing about which is better.
        known = np.isfinite(first) | np.isfinite(second)
        with np.errstate(invalid="ignore"):
            ratio = (first - second)[known]
        return cls(
            _over_seeds(first, first_drawn, groups),
            _over_seeds(second, second_drawn, groups),
            _over_seeds(ratio, both, groups),
        )


def _log_finals(runs: Sequence[ArmRun], draws: Array | None) -> tuple[Array, Array | None]:
    """Log final losses [S] of ``runs``, infinite where a seed diverged, and those of each draw of
    the test groups [S, R]; None where a seed has none."""
    logs = np.full(len(runs), np.inf)
    for index, run in enumerate(runs):
        final = run.record.final
        if not run.diverged and final is not None and final.total:
            logs[index] = np.log(final.total)
    if draws is None or not np.isfinite(logs).all():
        return logs, None
    drawn = _drawn([final_groups(run.record) for run in runs], draws)
    return logs, None if drawn is None else np.log(drawn[0])


def _over_seeds(logs: Array, drawn: Array | None, groups: int) -> Band:
    """The mean over seeds of ``logs`` [S] with its interval; medians and ranks where some are
    infinite; unknown with none."""
    if not len(logs):
        nothing = np.full(1, np.nan)
        return Band(nothing, nothing, nothing, nothing)
    if not np.isfinite(logs).all():
        return ranked(logs[:, None])
    resampled = None if drawn is None else Resampled(drawn.mean(axis=0)[:, None], groups)
    return student(logs.mean(keepdims=True), logs[:, None], resampled)


def _drawn(groups: Sequence[GroupErrors | None], draws: Array) -> tuple[Array, Array] | None:
    """Total and equivariance error [S, R] of each seed's ``groups`` in each of ``draws``."""
    known = [each for each in groups if each is not None]
    if not known or len(known) < len(groups):
        return None
    total = [group_means(each.total, each.weights, draws)[1:, 0] for each in known]
    equivariance = [group_means(each.equivariance, each.weights, draws)[1:, 0] for each in known]
    return np.array(total), np.array(equivariance)


def twirled_loss(
    n: int, runs: MatchedRuns, final: FinalErrors, reasons: dict[str, str]
) -> TwirledLoss:
    """The augmented arm, ``final`` at its end, averaged over ``n`` rotations: its loss is
    total - V + V/n on average over their choice (V: equivariance error).

    What was not measured is put into ``reasons``.
    """
    loss = final.mean(lambda total, equivariance: total - equivariance + equivariance / n)
    if loss == UNKNOWN:
        reasons[f"twirl.{n}.loss"] = (
            "no finished run of the augmented arm has a decomposed final evaluation"
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
