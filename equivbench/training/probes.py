"""Measurements of an arm off its budget: seconds of a step, forward passes a second, what twirling
costs, FLOPs and peak memory."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from equivbench.records.schema import NotMeasured
from equivbench.symmetry.wrappers import wrap
from equivbench.training.arm import Arm
from equivbench.training.clock import Clock

StepFunction = Callable[[Clock], None]
"""Makes one training step, charged to the clock's parts ``data`` and ``train``."""

TWIRLS = (2, 4, 8)
"""Rotations over which test-time averaging is timed."""
_ROUNDS = 3
"""Fewest timed rounds after the one that warms up."""


def time_steps(step: StepFunction, clock: Clock, seconds: float) -> list[float]:
    """Seconds (data + train) of each of at least one step, in about ``seconds``, on a ``clock`` of
    their own."""
    times: list[float] = []
    with clock.running():
        while not times or sum(times) < seconds:
            before = clock.spent
            step(clock)
            clock.synchronize()
            times.append(clock.spent - before)
    return times


def forward_rates(
    arm: Arm, inputs: Mapping[str, Tensor], clock: Clock, seconds: float
) -> dict[str, float]:
    """Samples a second of forward passes with the weights that the arm holds now.

    All ways are timed in turn, on the same ``inputs`` of ``arm.evaluated_at_once`` samples and a
    ``clock`` of their own, until ``seconds`` have passed; the median counts.

    Returns
    -------
    dict
        ``plain``, and ``2``, ``4``, ``8``: averaged over that many rotations at test time.
    """
    modules: dict[str, nn.Module] = {"plain": arm.module}
    for n in TWIRLS:
        modules[str(n)] = wrap(f"twirl-{n}", arm.model, arm.task.fields, arm.task.index_field)
    times: dict[str, list[float]] = {name: [] for name in modules}
    for module in modules.values():
        module.eval()
    with clock.running(), torch.no_grad(), arm.autocast():
        while min(len(rounds) for rounds in times.values()) <= _ROUNDS or clock.wall < seconds:
            for name, module in modules.items():
                times[name].append(_forward_seconds(module, inputs, clock))
    arm.module.train()
    # The first round is warm-up.
    return {
        name: arm.evaluated_at_once / statistics.median(rounds[1:])
        for name, rounds in times.items()
    }


def flops_per_sample(arm: Arm, inputs: Mapping[str, Tensor]) -> float | NotMeasured:
    """Forward FLOPs a sample on ``inputs`` of ``arm.evaluated_at_once`` samples, by the model's own
    formula (its method ``flops(inputs)``)."""
    formula = getattr(arm.model, "flops", None)
    if formula is None:
        return NotMeasured("the model gives no formula for its FLOPs")
    return float(formula(inputs)) / arm.evaluated_at_once


def peak_memory(device: torch.device) -> int | NotMeasured:
    """Peak bytes so far: of the device's allocator on CUDA, of the whole process on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource  # absent on Windows
    except ImportError:
        return NotMeasured("this operating system does not tell the peak memory of a process")
    # ru_maxrss counts bytes on macOS and kibibytes elsewhere.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _forward_seconds(module: nn.Module, inputs: Mapping[str, Tensor], clock: Clock) -> float:
    clock.synchronize()
    before = clock.wall
    module(**inputs)
    clock.synchronize()
    return clock.wall - before
