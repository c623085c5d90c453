"""How long a training step of one arm takes beside one of the other, from the blocks that were
timed in alternation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from equivbench.gap.intervals import Component, Quantity, geometric_mean
from equivbench.gap.pairing import ArmRun, MatchedRuns
from equivbench.records.schema import RunRecord

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PairedTimes:
    """Seconds a step of the equivariant over the augmented arm, paired by seed and block, and what
    each arm does within the budget."""

    log_ratios: Array
    """[S]; that of a seed without timing (it diverged first) is the mean of the others."""
    timed: NDArray[np.bool_]
    """[S] whether the seed has timing: only such a one tells how much seeds differ."""
    blocks: Component | None
    """The variance that the timed blocks leave in the mean, where there is but one seed: more of
    them show it in their differences."""
    train_seconds: dict[str, float]
    """By arm, of the steps of its budget: geometric mean over seeds."""
    compile_seconds: dict[str, float]
    """By arm, mean over seeds."""

    @cached_property
    def speed(self) -> Quantity:
        """The geometric mean of the ratios."""
        own = self.log_ratios[self.timed]
        return geometric_mean(own, *([] if self.blocks is None else [self.blocks]))

    @property
    def exchanged(self) -> PairedTimes:
        """That of the augmented over the equivariant arm."""
        return replace(self, log_ratios=-self.log_ratios)


def step_times(runs: MatchedRuns) -> PairedTimes | str:
    """The step times of ``runs``, or in a sentence why they are not used."""
    if runs.disturbed is not None:
        return runs.disturbed
    ratios = [
        _log_ratios(first.record, second.record)
        for first, second in zip(runs.equivariant, runs.augmented, strict=True)
    ]
    means = [float(ratio.mean()) for ratio in ratios if len(ratio)]
    if not means:
        untimed = [
            arm
            for arm, own in runs.arms.items()
            if not any(run.record.throughput.samples_per_second for run in own)
        ]
        which = f"the {' and '.join(untimed)} arm" if untimed else "both arms of a seed"
        return f"the step time of {which} was not measured (throughput.samples_per_second is null)"
    log_ratios = np.array([ratio.mean() if len(ratio) else np.mean(means) for ratio in ratios])
    blocks = ratios[0] if len(ratios) == 1 else np.zeros(0)
    return PairedTimes(
        log_ratios,
        np.array([len(ratio) > 0 for ratio in ratios]),
        Component(np.atleast_1d(blocks.var(ddof=1) / len(blocks)), len(blocks) - 1)
        if len(blocks) > 1
        else None,
        {arm: _train_seconds(own) for arm, own in runs.arms.items()},
        {
            arm: float(np.mean([run.record.clock.compile for run in own]))
            for arm, own in runs.arms.items()
        },
    )


def _log_ratios(first: RunRecord, second: RunRecord) -> Array:
    """Of block i of one and block i of the other, which were timed side by side; of their means
    where blocks were not kept; empty without any time."""
    blocks = [record.throughput.blocks for record in (first, second)]
    if len(blocks[0]) == len(blocks[1]) > 0:
        return np.log(blocks[0]) - np.log(blocks[1])
    taus = [_seconds_a_step(record) for record in (first, second)]
    if None in taus:
        return np.zeros(0)
    return np.diff(np.log(np.array(taus[::-1], dtype=np.float64)))


def _seconds_a_step(record: RunRecord) -> float | None:
    rate, blocks = record.throughput.samples_per_second, record.throughput.blocks
    if rate:
        return record.recipe.batch_size / rate
    return float(np.mean(blocks)) if blocks else None


def _train_seconds(runs: Sequence[ArmRun]) -> float:
    """Geometric mean over the seeds that finished, or of how far each came where none did."""
    records = [run.record for run in runs if not run.diverged] or [run.record for run in runs]
    taus = [(record.steps, _seconds_a_step(record)) for record in records]
    logs = [math.log(steps * tau) for steps, tau in taus if tau and steps]
    return math.exp(float(np.mean(logs))) if logs else 0.0
