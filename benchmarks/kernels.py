"""The quick kernel cases on our backends and on e3nn: checked and timed once, in turn, and tracked
many times.

The cases, their names and the check against the float64 reference are those of ``equivbench
kernels``. Importing this imports no torch, as asv reads every value in a process of its own.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks.tracked import Values, positive, read
from equivbench.kernels.operations import CASES, Case
from equivbench.specs import MODES, Mode

if TYPE_CHECKING:
    from equivbench.kernels.comparing import BackendComparison

REFERENCE = "e3nn"
PROVIDED = {
    "torch": {one.operation.name for one in CASES},
    "fused": {"convolution"},
    REFERENCE: {"convolution", "spherical-harmonics", "linear", "steerable-convolution"},
}
"""The operations of each backend. Stated here, not asked for: asv has no way to leave a combination
out but to start a process for it and to write down NaN."""
ROUNDS = 8
SECONDS = 0.05
"""Of each round; the rounds of a case's backends alternate, and each gives its least sample."""


def modes_of(one: Case) -> tuple[Mode, ...]:
    """The derivatives that networks take of it."""
    return MODES[: one.derivatives + 1]


def backends_of(one: Case) -> tuple[str, ...]:
    """The backends that provide it."""
    return tuple(name for name, operations in PROVIDED.items() if one.operation.name in operations)


def compared(one: Case) -> tuple[str, ...]:
    """The backends whose time is set against e3nn's."""
    names = backends_of(one)
    return tuple(name for name in names if name != REFERENCE) if REFERENCE in names else ()


QUICK = tuple(one for one in CASES if one.quick)
TIMED = tuple(
    f"{one.name}/{mode}/{name}"
    for one in QUICK
    for mode in modes_of(one)
    for name in backends_of(one)
)
COMPARED = tuple(
    f"{one.name}/{mode}/{name}" for one in QUICK for mode in modes_of(one) for name in compared(one)
)


def setup_cache() -> Values:
    """Time every combination; asv calls this once for all classes below and keeps what it
    returns."""
    import torch

    from equivbench.kernels.comparing import BackendPlan, comparisons

    torch.set_num_threads(1)
    values: Values = dict.fromkeys(TIMED, "it was not timed")
    for comparison in comparisons(
        QUICK, tuple(PROVIDED), MODES, BackendPlan(rounds=ROUNDS, seconds=SECONDS)
    ):
        values |= values_of(comparison)
    return values


setup_cache.timeout = 1200  # type: ignore[attr-defined]


def values_of(comparison: BackendComparison) -> Values:
    """What is tracked of one case and mode, and why there is nothing of a backend: a wrong kernel
    must not hide the others."""
    title = f"{comparison.case.name}/{comparison.mode}"
    rounds = {sample.backend: sample.rounds for sample in comparison.samples}
    values: Values = {}
    for name, seconds in rounds.items():
        values[f"{title}/{name}"] = found = {
            "seconds": positive(min(seconds), f"seconds of {title}/{name}")
        }
        if REFERENCE in rounds and name != REFERENCE:
            ratios = [
                ours / theirs for ours, theirs in zip(seconds, rounds[REFERENCE], strict=True)
            ]
            found["of_reference"] = positive(
                statistics.median(ratios), f"time of {title}/{name} over {REFERENCE}'s"
            )
    for refusal in comparison.refusals:
        if refusal.kind == "unsupported":
            continue
        values[f"{title}/{refusal.backend}"] = (
            f"{ABSENT}{refusal.reason}" if refusal.kind == "absent" else refusal.reason
        )
    return values


ABSENT = "absent: "
"""How the reason begins where a backend is not there at all, which is no failure."""


def skip_absent(values: Values, name: str) -> None:
    """Raise ``NotImplementedError``, asv's word for "skipped", where the backend of ``name`` is not
    there."""
    found = values[name]
    if isinstance(found, str) and found.startswith(ABSENT):
        raise NotImplementedError(found)


class Kernels:
    """Each combination by itself."""

    version = "1"
    params = TIMED
    param_names = ("kernel",)
    timeout = 60

    def setup(self, values: Values, name: str) -> None:
        """Skip what is not there."""
        skip_absent(values, name)

    def track_seconds(self, values: Values, name: str) -> float:
        """Seconds a call: the least of all rounds."""
        return read(values, name, "seconds")


class AgainstE3nn:
    """Each combination over e3nn's time in the same rounds, which what else the machine does can
    hardly move."""

    version = "1"
    params = COMPARED
    param_names = ("kernel",)
    timeout = 60

    def setup(self, values: Values, name: str) -> None:
        """Skip what is not there."""
        skip_absent(values, name)

    def track_time_ratio(self, values: Values, name: str) -> float:
        """Median over rounds of seconds over e3nn's seconds."""
        return read(values, name, "of_reference")


Kernels.track_seconds.unit = "seconds"  # type: ignore[attr-defined]
AgainstE3nn.track_time_ratio.unit = "ratio"  # type: ignore[attr-defined]
