"""The gate's list, timed once in one process for each kind and tracked many times.

Names, and what is timed, are those of ``equivbench check --interleave``. Importing this imports no
torch, as asv reads every value in a process of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.tracked import ABSENT, Values, positive, read, skip_absent
from equivbench.gate.benchmarks import (
    AbsentBenchmark,
    Benchmark,
    of_data,
    of_harness,
    of_kernels,
    of_pairs,
    of_symmetry,
)

SAMPLES = 5
"""Of each benchmark, of which the least is tracked: noise only adds."""


def timed(benchmarks: Sequence[Benchmark]) -> Values:
    """Seconds of each, or why there are none: one that is broken must not hide the others."""
    import torch

    torch.set_num_threads(1)
    values: Values = {}
    for each in benchmarks:
        try:
            ready = each.build()
            seconds = min(ready.sample() for _ in range(SAMPLES))
            values[each.name] = {"seconds": positive(seconds, f"seconds of {each.name}")}
        except AbsentBenchmark as error:
            values[each.name] = f"{ABSENT}{error}"
        except Exception as error:  # noqa: BLE001  whatever the code under test raises
            values[each.name] = f"{type(error).__name__}: {error}"
    return values


class _Timings:
    """Benchmarks of one kind; each class names its own ``setup_cache``, which asv tells apart by
    its line."""

    version = "1"
    param_names = ("benchmark",)
    timeout = 60

    def setup(self, values: Values, name: str) -> None:
        """Skip what is not there."""
        skip_absent(values, name)

    def track_seconds(self, values: Values, name: str) -> float:
        """Seconds a call: the least of all samples."""
        return read(values, name, "seconds")

    track_seconds.unit = "seconds"  # type: ignore[attr-defined]


HARNESS = (*of_harness(), *of_symmetry(), *of_data())
KERNELS = tuple(of_kernels())
PAIRS = tuple(of_pairs())


class Harness(_Timings):
    """The command line, rotations, the decomposition and the data sets."""

    params = tuple(each.name for each in HARNESS)

    def setup_cache(self) -> Values:
        """Once for all of them."""
        return timed(HARNESS)

    setup_cache.timeout = 600  # type: ignore[attr-defined]


class Kernels(_Timings):
    """The quick kernel cases, each checked against its float64 reference in the same process."""

    params = tuple(each.name for each in KERNELS)

    def setup_cache(self) -> Values:
        """Once for all of them."""
        return timed(KERNELS)

    setup_cache.timeout = 1800  # type: ignore[attr-defined]


class Training(_Timings):
    """A step and an evaluation of each arm of each pair at its ``dev`` preset, a batch of each
    pair."""

    params = tuple(each.name for each in PAIRS)

    def setup_cache(self) -> Values:
        """Once for all of them."""
        return timed(PAIRS)

    setup_cache.timeout = 1800  # type: ignore[attr-defined]
