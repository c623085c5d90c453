"""Measurements off the budget: seconds a step, forward passes a second, what twirling costs, peak
memory."""

from __future__ import annotations

import resource
import statistics
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from equivbench.records.schema import Inference, Memory
from equivbench.symmetry.wrappers import wrap
from equivbench.training import precision
from equivbench.training.clock import Clock
from equivbench.training.state import put_back, snapshot

if TYPE_CHECKING:
    from equivbench.training.trainer import Trainer

TWIRLS = (2, 4, 8)
"""Rotations over which test-time averaging is timed."""
_ROUNDS = 3


def time_steps(trainer: Trainer, seconds: float) -> list[float]:
    """Seconds (data + train) of each of at least one real training step, in about ``seconds``, off
    the budget.

    The steps are those that would come next; afterwards weights, averages, moments and counters are
    what they were, to the bit. Charged to clock part ``timing``.
    """
    with trainer.holding_the_device():
        trainer.prepare()
        with trainer.clock.part("timing"):
            live = trainer.tensors()
            saved = snapshot(live)
            step, samples = trainer.facts.step, trainer.facts.samples
            clock = trainer.clock.scratch()
            times: list[float] = []
            with clock.running():
                while not times or sum(times) < seconds:
                    before = clock.spent
                    trainer.step(clock)
                    clock.synchronize()
                    times.append(clock.spent - before)
            put_back(live, saved)
            trainer.facts.step, trainer.facts.samples = step, samples
            trainer.forget_losses()
    return times


def inference(trainer: Trainer, seconds: float) -> Inference:
    """Samples a second of forward passes with the averaged weights, plain and averaged over 2, 4
    and 8 rotations.

    All four are timed in turn, on the same batch of stored samples, until ``seconds`` have passed;
    the median counts.
    """
    arm, clock = trainer.arm, trainer.clock.scratch()
    at_once = arm.evaluated_at_once
    with trainer.holding_the_device(), trainer.clock.part("timing"), trainer.average.swapped_in():
        inputs, _ = trainer.batches.canonical(at_once)
        modules: dict[str, nn.Module] = {"plain": arm.module}
        for n in TWIRLS:
            modules[str(n)] = wrap(f"twirl-{n}", arm.model, arm.task.fields, arm.task.index_field)
        times: dict[str, list[float]] = {name: [] for name in modules}
        for module in modules.values():
            module.eval()
        with clock.running(), torch.no_grad(), precision.autocast(arm.recipe.precision, arm.device):
            while min(len(rounds) for rounds in times.values()) <= _ROUNDS or clock.wall < seconds:
                for name, module in modules.items():
                    times[name].append(_forward_seconds(module, inputs, clock))
        arm.module.train()
    # The first round is warm-up.
    rates = {name: at_once / statistics.median(rounds[1:]) for name, rounds in times.items()}
    return Inference(samples_per_second=rates.pop("plain"), twirl=rates)


def peak_memory(device: torch.device) -> Memory:
    """Peak memory so far: of the device's allocator on CUDA, of the whole process on a CPU."""
    if device.type == "cuda":
        return Memory(peak_bytes=int(torch.cuda.max_memory_allocated(device)))
    unit = 1 if sys.platform == "darwin" else 1024
    return Memory(peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def flops_per_sample(trainer: Trainer) -> float | None:
    """Forward FLOPs a sample by the model's own formula (its method ``flops(inputs)``); None where
    it has none."""
    formula = getattr(trainer.arm.model, "flops", None)
    if formula is None:
        return None
    at_once = trainer.arm.evaluated_at_once
    inputs, _ = trainer.batches.canonical(at_once)
    return float(formula(inputs)) / at_once


def _forward_seconds(module: nn.Module, inputs: Mapping[str, Tensor], clock: Clock) -> float:
    clock.synchronize()
    before = clock.wall
    module(**inputs)
    clock.synchronize()
    return clock.wall - before
