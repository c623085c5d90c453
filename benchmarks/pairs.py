"""Each pair at its ``dev`` preset: trained once, as ``equivbench run`` trains it, and tracked many
times.

``dev`` has a budget in steps, so losses, errors, their ratio and the steps to a loss are functions
of the code alone; seconds come from the run's alternated timing rounds. Importing this imports no
torch, as asv reads every value in a process of its own.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.tracked import ABSENT, Values, positive, read, skip_absent
from equivbench.errors import EquivbenchError
from equivbench.records.curves import curve
from equivbench.registry import PAIRS

if TYPE_CHECKING:
    from equivbench.records.schema import RunRecord

ENTRIES = PAIRS.entries()
ARMS = tuple(
    f"{name}/{arm.name}" for name, entry in ENTRIES.items() for arm in entry.value.contestants
)
EQUIVARIANCE_FLOOR = 1e-6
"""Shares below it are rounding (float32 leaves 1e-14 to 1e-9), whose ups and downs are no change of
the code; a share can come out negative by chance, and asv wants what is positive."""
PARTS = ("1/4", "1/2")
"""Of the budget, at which the arms are compared too: the rungs of ``dev``."""
RUNGS = tuple(f"{name}/{part}" for name in ENTRIES for part in PARTS)
TIES = tuple(f"{name}/tie" for name in ENTRIES)
TARGETS = {
    "flow/frames/equivariant": 0.00585,
    "forcefield/tensor-product/augmented": 2.04,
    "forcefield/tensor-product/equivariant": 2.0,
    "forcefield/tensor-product-parameters/augmented": 2.11,
    "forcefield/tensor-product-parameters/equivariant": 2.0,
    "forcefield/vector/augmented": 1.88,
    "forcefield/vector/equivariant": 1.16,
    "voxel/octahedral/augmented": 5.77e-4,
    "voxel/octahedral/equivariant": 6.24e-4,
    "voxel/steerable/augmented": 5.75e-4,
    "voxel/steerable/equivariant": 5.91e-4,
}
"""A loss of an arm that stays as it is, so that the steps to it can fall: between those of half and
of the whole budget when it was set. Arms that hardly learn within ``dev`` have none."""


def setup_cache() -> Values:
    """Run every pair once; asv calls this once for all classes below and keeps what it returns."""
    values: Values = {}
    for name in ENTRIES:
        values |= measured(name)
    return values


setup_cache.timeout = 1500  # type: ignore[attr-defined]


def measured(name: str) -> Values:
    """The values of both arms of the pair ``name``, or why there are none: one broken pair must not
    hide the others."""
    from equivbench.execution.executors import run

    with tempfile.TemporaryDirectory(prefix="equivbench-asv-") as folder:
        # Checkpoints of a benchmark are nobody's: they go with the folder, and no earlier run is
        # found.
        os.environ["EQUIVBENCH_CACHE"] = str(Path(folder) / "cache")
        try:
            records = run(name, preset="dev", device="cpu", threads=1, out=Path(folder) / "results")
            values: Values = {f"{name}/{record.arm}": values_of(record) for record in records}
        except (EquivbenchError, ValueError) as error:
            titles = (*ARMS, *RUNGS, *TIES)
            return {each: str(error) for each in titles if each.startswith(f"{name}/")}
        return values | compared(name, records)


def compared(name: str, records: Sequence[RunRecord]) -> Values:
    """The values of the two arms of the pair ``name`` beside each other: at the rungs, and where
    the arm in front ties; or why there are none."""
    values: Values = {}
    curves = {record.arm: curve(record)[::-1] for record in records}
    first, second = (curves[arm.name] for arm in ENTRIES[name].value.contestants)
    for back, part in enumerate(reversed(PARTS), 1):
        title = f"{name}/{part}"
        try:
            ratio = (first[back].test.total or 0.0) / (second[back].test.total or math.nan)
            values[title] = {"loss_ratio": positive(ratio, f"loss ratio of {title}")}
        except (IndexError, ValueError) as error:
            values[title] = f"the arms have no such rung: {error}"
    ties = ties_of(records)
    values[f"{name}/tie"] = ties or f"{ABSENT}one arm ends below all rungs of the other"
    return values


def ties_of(records: Sequence[RunRecord]) -> dict[str, float]:
    """The part of its steps, and of its time, at which the equivariant arm ties with the end of the
    augmented one; where that is in front, the inverse of its part. What is not known is left
    out."""
    from equivbench.gap.efficiency import efficiency_gap

    (gap,) = efficiency_gap(records)
    sides = {
        "steps": (gap.sample_efficiency, gap.sample_efficiency_augmented),
        "time": (gap.s_star_equivariant.steady, gap.s_star_augmented.steady),
    }
    found = {}
    for name, (own, other) in sides.items():
        if own.value and own.censored is None:
            found[name] = positive(own.value, f"{name} at break-even")
        elif other.value and other.censored is None:
            found[name] = positive(1 / other.value, f"{name} at break-even")
    return found


def values_of(record: RunRecord) -> dict[str, float]:
    """What is tracked of one run; raises ``ValueError`` naming the arm where a part of it is
    missing or impossible."""
    title, final, steps = (
        f"{record.task}/{record.pair}/{record.arm}",
        record.final,
        record.throughput.step_seconds,
    )
    if (
        record.status != "completed"
        or final is None
        or steps is None
        or final.total is None
        or final.share is None
    ):
        raise ValueError(
            f"{title} is {record.status}: "
            f"{record.reason or 'it was not evaluated and timed to its end'}"
        )
    values = {
        "test_loss": final.total,
        "equivariance_error": max(final.share, EQUIVARIANCE_FLOOR),
        # The fastest tenth of the alternated steps: what the code needs, not what the machine's
        # other guests took.
        "seconds_per_sample": steps.p10 / record.recipe.batch_size,
    }
    if title in TARGETS:
        from equivbench.gap.target import CostedLoss, time_to_loss

        taken = time_to_loss(
            [
                CostedLoss(at.train_seconds, at.step, at.samples, at.test.total or 0.0)
                for at in curve(record)
            ],
            TARGETS[title],
        )
        # A run that stays above it has no value; that benchmark alone fails.
        if taken is not None and taken.censored is None:
            values["steps_to_target"] = taken.steps
    return {key: positive(value, f"{key} of {title}") for key, value in values.items()}


class Arms:
    """Each arm by itself, at the end of its fixed number of steps."""

    version = "1"
    params = ARMS
    param_names = ("arm",)
    timeout = 60

    def track_test_loss(self, values: Values, arm: str) -> float:
        """The task's board metric on the test set, with the averaged weights."""
        return read(values, arm, "test_loss")

    def track_equivariance_error(self, values: Values, arm: str) -> float:
        """Equivariance error as a share of the test loss, not below ``EQUIVARIANCE_FLOOR``."""
        return read(values, arm, "equivariance_error")

    def track_seconds_per_sample(self, values: Values, arm: str) -> float:
        """Seconds of a training step, data included, over the batch size."""
        return read(values, arm, "seconds_per_sample")


class Targets:
    """Each arm by the steps that it takes to a fixed loss, as the ladders do by seconds."""

    version = "1"
    params = tuple(TARGETS)
    param_names = ("arm",)
    timeout = 60

    def track_steps_to_target(self, values: Values, arm: str) -> float:
        """Steps until the annealed loss is down at the arm's ``TARGETS``, between rungs along
        straight lines on logarithmic axes."""
        return read(values, arm, "steps_to_target")


class Rungs:
    """The equivariant arm over the augmented one at smaller budgets."""

    version = "1"
    params = RUNGS
    param_names = ("rung",)
    timeout = 60

    def track_loss_ratio(self, values: Values, rung: str) -> float:
        """Annealed loss over annealed loss after the same part of the steps."""
        return read(values, rung, "loss_ratio")


class Ties:
    """Where the arm in front ties with the other one's end: below 1 the equivariant arm leads."""

    version = "1"
    params = TIES
    param_names = ("pair",)
    timeout = 60

    def setup(self, values: Values, tie: str) -> None:
        """Skip a pair whose arms do not meet."""
        skip_absent(values, tie)

    def track_steps_at_break_even(self, values: Values, tie: str) -> float:
        """Part of its steps; one over that of the augmented arm."""
        return read(values, tie, "steps")

    def track_time_at_break_even(self, values: Values, tie: str) -> float:
        """Part of its time: the equivariant arm's s*, or one over the augmented arm's."""
        return read(values, tie, "time")


class Pairs:
    """The equivariant arm over the augmented one: what the harness is for."""

    version = "1"
    params = tuple(ENTRIES)
    param_names = ("pair",)
    timeout = 60

    def track_loss_ratio(self, values: Values, pair: str) -> float:
        """Test loss over test loss after the same number of steps."""
        return self.ratio(values, pair, "test_loss")

    def track_step_time_ratio(self, values: Values, pair: str) -> float:
        """Seconds a sample over seconds a sample, from rounds taken in turn."""
        return self.ratio(values, pair, "seconds_per_sample")

    def ratio(self, values: Values, pair: str, key: str) -> float:
        """The first contestant's value over the second's."""
        first, second = (
            read(values, f"{pair}/{arm.name}", key) for arm in ENTRIES[pair].value.contestants
        )
        return positive(first / second, f"ratio of {key} of {pair}")


Arms.track_test_loss.unit = "task unit"  # type: ignore[attr-defined]
Arms.track_equivariance_error.unit = "share"  # type: ignore[attr-defined]
Arms.track_seconds_per_sample.unit = "seconds"  # type: ignore[attr-defined]
Targets.track_steps_to_target.unit = "steps"  # type: ignore[attr-defined]
Rungs.track_loss_ratio.unit = "ratio"  # type: ignore[attr-defined]
Ties.track_steps_at_break_even.unit = "ratio"  # type: ignore[attr-defined]
Ties.track_time_at_break_even.unit = "ratio"  # type: ignore[attr-defined]
Pairs.track_loss_ratio.unit = "ratio"  # type: ignore[attr-defined]
Pairs.track_step_time_ratio.unit = "ratio"  # type: ignore[attr-defined]
