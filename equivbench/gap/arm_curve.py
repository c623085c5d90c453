"""One arm of a pair as the gap sees it, made from its run records: the learning curve with its
replicates, the seconds a step, and the steps that the budget allows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from equivbench.gap.curves import GriddedCurves, SeedCurve, decreasing, evaluate, gather
from equivbench.gap.intervals import (
    FEW_SEEDS,
    REPLICATES,
    draw_groups,
    draw_seeds,
)
from equivbench.gap.pairing import ArmRun, Setting
from equivbench.records.schema import GroupErrors, RunRecord, TracePoint

Array = NDArray[np.float64]
REACH = 0.9
"""A curve that ends before this fraction of the steps that the budget allows is pointed out."""
RISE = 0.05
"""A last point this much above the non-increasing fit is pointed out: the arm did better with less
training."""


@dataclass(frozen=True)
class ArmCurve:
    """One arm under one budget: its curves, and how fast it steps."""

    curves: GriddedCurves | None
    """Those of the finished seeds, in order; None if no seed finished."""
    finished: NDArray[np.bool_]
    """[S]: which of the paired seeds finished."""
    log_tau: Array | None
    """[S]: log seconds a step of each seed; None where they were not timed."""
    steps: float
    """Steps that the budget allows."""
    batch_size: float
    compile_seconds: float
    """Mean over seeds."""
    groups: int
    """Test groups that the curves' replicates are drawn from; 0 without replicates."""

    @property
    def tau(self) -> float | None:
        """Steady-state seconds a step, geometric mean over seeds."""
        return None if self.log_tau is None else math.exp(float(self.log_tau.mean()))

    @property
    def jitter(self) -> Array:
        """[S]: each seed's log seconds a step against the mean; zeros where there is no timing."""
        if self.log_tau is None:
            return np.zeros(len(self.finished))
        return np.asarray(self.log_tau - self.log_tau.mean())

    def log_steps_within(self, log_seconds: Array, *, all_in: bool = False) -> Array:
        """[P]: log of the steps that budgets of exp(``log_seconds``) [P] allow: n = B / tau, or
        with ``all_in`` n = (B - compile seconds) / tau."""
        assert self.tau is not None
        if not all_in or self.compile_seconds == 0:
            return log_seconds - math.log(self.tau)
        # Not one step is made while it compiles; a curve is read at its first point from any
        # smaller number of steps on.
        left = np.maximum(np.exp(log_seconds) - self.compile_seconds, np.finfo(np.float64).tiny)
        return np.asarray(np.log(left) - math.log(self.tau))

    @cached_property
    def fits(self) -> Array:
        """[R, K]: non-increasing fits of the mean over seeds; rows after the first have test groups
        (and many seeds) drawn anew."""
        assert self.curves is not None
        if len(self.finished) <= FEW_SEEDS:
            return self.curves.fits()
        log_loss = self.curves.log_loss
        drawn = draw_seeds(len(self.finished), REPLICATES)
        # Without replicates of the test groups each replicate of the seeds takes the measured set.
        rows = range(len(drawn)) if len(log_loss) > 1 else [0] * len(drawn)
        means = [log_loss[row, seeds].mean(axis=0) for row, seeds in zip(rows, drawn, strict=True)]
        return decreasing(np.stack(means))

    def fits_at(self, log_steps: Array, shift: Array) -> Array:
        """[R, P]: the fits at ``log_steps`` [P], moved by the mean ``shift`` [S] of the seeds in
        each replicate."""
        assert self.curves is not None
        points = log_steps
        if len(self.finished) > FEW_SEEDS:
            drawn = draw_seeds(len(self.finished), REPLICATES)
            points = log_steps + shift[drawn].mean(axis=1, keepdims=True)
        return evaluate(self.curves.log_steps, self.fits, points)

    def seeds_at(self, log_steps: Array, shift: Array, *, fitted: bool = False) -> Array:
        """[S, P]: each seed's log loss at ``log_steps`` [P] moved by its own ``shift`` [S];
        infinite where it diverged."""
        values = np.full((len(self.finished), len(log_steps)), np.inf)
        if self.curves is not None:
            points = log_steps[None] + shift[self.finished, None]
            rows = self.curves.seed_fits() if fitted else self.curves.log_loss[0]
            values[self.finished] = evaluate(self.curves.log_steps, rows, points)
        return values

    def log_loss_within(self, log_seconds: Array, *, all_in: bool = False) -> Array:
        """[P]: the log loss after budgets of exp(``log_seconds``) [P]; the median over seeds where
        some diverged."""
        here = self.log_steps_within(log_seconds, all_in=all_in)
        if not self.finished.all():
            unmoved = np.zeros(len(self.finished))
            return np.asarray(np.median(self.seeds_at(here, unmoved, fitted=True), axis=0))
        assert self.curves is not None
        return np.asarray(evaluate(self.curves.log_steps, self.fits[:1], here)[0])


def arm_curve(runs: Sequence[ArmRun], setting: Setting, draws: Array | None) -> ArmCurve:
    """The arm that made ``runs`` (one for each paired seed, in order) under ``setting``.

    ``draws`` [R, G] are those of the test groups, of :func:`group_draws` over both arms.
    """
    curves = [seed_curve(*run.trace(), draws) for run in runs if not run.diverged]
    batch_size = float(runs[0].record.recipe.batch_size)
    log_tau = _log_tau(runs)
    steps = _steps(runs, setting, batch_size, log_tau)
    return ArmCurve(
        curves=gather(curves).reaching(math.log(steps)) if curves else None,
        finished=np.array([not run.diverged for run in runs]),
        log_tau=log_tau,
        steps=steps,
        batch_size=batch_size,
        compile_seconds=float(np.mean([run.record.clock.compile for run in runs])),
        groups=0 if draws is None else draws.shape[1],
    )


def group_draws(runs: Sequence[ArmRun]) -> Array | None:
    """[R, G]: draws of the test groups that all finished ``runs`` share, or None if they do not
    share (or report) any."""
    errors = [run.trace()[1] for run in runs if not run.diverged]
    weights = [None if each is None else each.weights for each in errors]
    first = weights[0] if weights else None
    if first is None or len(first) < 2 or any(each != first for each in weights):
        return None
    return draw_groups(len(first))


def seed_curve(
    points: Sequence[TracePoint], errors: GroupErrors | None, draws: Array | None
) -> SeedCurve:
    """The curve of one seed with a replicate for each row of ``draws`` (the first of which is the
    measured set)."""
    log_loss = np.log(np.array([[point.test.total for point in points]], dtype=np.float64))
    if draws is not None and errors is not None:
        replicates = np.log(group_means(errors.total, errors.weights, draws))
        log_loss = log_loss + replicates - replicates[:1]
    return SeedCurve(np.log([float(point.step) for point in points]), log_loss)


def group_means(values: Sequence[Sequence[float]], weights: Sequence[float], draws: Array) -> Array:
    """[R, K]: the weighted mean over groups of ``values`` [K][G] in each of ``draws`` [R, G]."""
    row_weights = np.asarray(weights)
    sums = draws @ (np.asarray(values) * row_weights).T
    return np.asarray(sums / (draws @ row_weights)[:, None])


def final_groups(record: RunRecord) -> GroupErrors | None:
    """The group errors of the final evaluation alone, or None if they were not kept."""
    groups = record.groups
    if groups is None or not groups.total or len(groups.equivariance) != len(groups.total):
        return None
    return GroupErrors(
        weights=groups.weights, total=groups.total[-1:], equivariance=groups.equivariance[-1:]
    )


def caveats(arms: Mapping[str, ArmCurve], draws: Array | None) -> list[str]:
    """What a reader must know about the curves and intervals of both ``arms``, as sentences."""
    seeds = len(next(iter(arms.values())).finished)
    failed = [
        f"{int((~curve.finished).sum())} of the {arm} arm"
        for arm, curve in arms.items()
        if not curve.finished.all()
    ]
    notes = []
    if failed:
        notes.append(
            f"diverged: {', '.join(failed)}; medians and rank intervals over seeds stand for means"
        )
    elif draws is None and seeds > 1:
        notes.append("no test groups shared by all runs: the intervals cover seeds only")
    if seeds == 1:
        cover = "no intervals" if draws is None else "the intervals cover the test set only"
        notes.append(f"one seed: {cover}")
    for arm, curve in arms.items():
        notes += _caveats_of(arm, curve)
    return notes


def _caveats_of(arm: str, curve: ArmCurve) -> list[str]:
    notes = []
    if curve.log_tau is None:
        notes.append(f"the step time of the {arm} arm was not measured")
    if curve.curves is None:
        return notes
    reached = math.exp(curve.curves.measured_to) / curve.steps
    if reached < REACH:
        notes.append(
            f"the {arm} curve ends at {reached:.0%} of the budget's steps as timed; "
            "its last value stands for the rest"
        )
    measured = float(curve.curves.log_loss[0, :, -1].mean())
    rise = math.exp(measured - float(curve.fits[0, -1])) - 1
    if rise > RISE:
        notes.append(
            f"the {arm} arm's test loss rises at the end and lies {rise:.0%} above its "
            "non-increasing fit"
        )
    return notes


def _log_tau(runs: Sequence[ArmRun]) -> Array | None:
    """[S] log seconds a step; a seed without timing (it diverged first) takes the mean of the
    others; None if none has it."""
    log_taus: list[float | None] = []
    for run in runs:
        rate = run.record.throughput.samples_per_second
        if not rate and not run.diverged:
            return None
        log_taus.append(math.log(run.record.recipe.batch_size / rate) if rate else None)
    known = [log_tau for log_tau in log_taus if log_tau is not None]
    if not known:
        return None
    mean = float(np.mean(known))
    return np.array([mean if log_tau is None else log_tau for log_tau in log_taus])


def _steps(
    runs: Sequence[ArmRun], setting: Setting, batch_size: float, log_tau: Array | None
) -> float:
    """The steps that the budget allows: B / tau, N, or samples / batch size. Without timing, the
    steps that were made."""
    if setting.budget_kind == "steps":
        return setting.budget_limit
    if setting.budget_kind == "samples":
        return setting.budget_limit / batch_size
    if log_tau is not None:
        return setting.budget_limit / math.exp(float(log_tau.mean()))
    return math.exp(float(np.mean([math.log(max(run.record.steps, 1)) for run in runs])))
