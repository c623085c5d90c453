"""Our kernels over e3nn's: the quick cases that e3nn provides, checked and timed in turn once, and
tracked many times. Seconds of each are in :mod:`benchmarks.timings`.

Importing this imports no torch, as asv reads every value in a process of its own.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks.tracked import ABSENT, Values, positive, read, skip_absent
from equivbench.kernels.operations import CASES, Case
from equivbench.specs import MODES, Mode

if TYPE_CHECKING:
    from equivbench.kernels.comparing import BackendComparison

REFERENCE = "e3nn"
PROVIDED = {
    "torch": {one.operation.name for one in CASES},
    "fused": {
        *("convolution", "painn-message", "symmetric-contraction", "edge-product"),
        *("so2-convolution", "so2-message"),
    },
    REFERENCE: {
        *("convolution", "spherical-harmonics", "linear", "steerable-convolution"),
        *("symmetric-contraction", "so2-convolution", "edge-product"),
    },
}
"""The operations of each backend. Stated here, not asked for: asv has no way to leave a combination
out but to start a process for it and to write down NaN."""
FORWARD_ONLY = ("so2-convolution",)
"""What e3nn gives no derivatives of in float32."""
ROUNDS = 8
SECONDS = 0.05
"""Of each round; the rounds of a case's backends alternate, and each gives its least sample."""


def modes_of(one: Case) -> tuple[Mode, ...]:
    """The derivatives that networks take of it and e3nn gives."""
    return MODES[: 1 if one.operation.name in FORWARD_ONLY else one.derivatives + 1]


def backends_of(one: Case) -> tuple[str, ...]:
    """The backends that provide it."""
    return tuple(name for name, operations in PROVIDED.items() if one.operation.name in operations)


QUICK = tuple(one for one in CASES if one.quick)
COMPARED = tuple(
    f"{one.name}/{mode}/{name}"
    for one in QUICK
    if one.operation.name in PROVIDED[REFERENCE]
    for mode in modes_of(one)
    for name in backends_of(one)
    if name != REFERENCE
)


def setup_cache() -> Values:
    """Time every combination; asv calls this once and keeps what it returns."""
    import torch

    from equivbench.kernels.comparing import BackendPlan, comparisons

    torch.set_num_threads(1)
    values: Values = dict.fromkeys(COMPARED, "it was not timed")
    cases = [one for one in QUICK if one.operation.name in PROVIDED[REFERENCE]]
    plan = BackendPlan(rounds=ROUNDS, seconds=SECONDS)
    for comparison in comparisons(cases, tuple(PROVIDED), MODES, plan):
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
        if name == REFERENCE:
            continue
        if REFERENCE not in rounds:
            values[f"{title}/{name}"] = f"{REFERENCE} was not timed beside it"
            continue
        ratios = [ours / theirs for ours, theirs in zip(seconds, rounds[REFERENCE], strict=True)]
        of_reference = positive(
            statistics.median(ratios), f"time of {title}/{name} over {REFERENCE}'s"
        )
        values[f"{title}/{name}"] = {"of_reference": of_reference}
    for refusal in comparison.refusals:
        if refusal.kind == "unsupported" or refusal.backend == REFERENCE:
            continue
        values[f"{title}/{refusal.backend}"] = (
            f"{ABSENT}{refusal.reason}" if refusal.kind == "absent" else refusal.reason
        )
    return values


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


AgainstE3nn.track_time_ratio.unit = "ratio"  # type: ignore[attr-defined]
