"""Each pair at its ``dev`` preset: trained once, as ``equivbench run`` trains it, and tracked many
times.

``dev`` has a budget in steps, so losses, errors and their ratio are functions of the code alone;
seconds come from the run's alternated timing rounds. Importing this imports no torch, as asv reads
every value in a process of its own.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.tracked import Values, positive, read
from equivbench.errors import EquivbenchError
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
            return {f"{name}/{record.arm}": values_of(record) for record in records}
        except (EquivbenchError, ValueError) as error:
            return {arm: str(error) for arm in ARMS if arm.startswith(f"{name}/")}


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
Pairs.track_loss_ratio.unit = "ratio"  # type: ignore[attr-defined]
Pairs.track_step_time_ratio.unit = "ratio"  # type: ignore[attr-defined]
