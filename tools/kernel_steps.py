"""Training steps of the arms of a pair on several kernel backends, in turn in one process, with
freed memory kept as `run` keeps it.

    python tools/kernel_steps.py [PAIR] [--kernels torch --kernels fused] [--forces conservative]

All backends start from the same weights and see the same batches. Prints for each the least and the
median time of a step, the median over the rounds of the first backend's time over its own, and how
far its weights are from the first backend's after the last step, the largest of all tensors.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time

import torch

from equivbench.environment import keep_memory
from equivbench.registry import MODELS, PAIRS
from equivbench.request import DEFAULT_KERNELS, RunRequest
from equivbench.training.assembly import build_trainer
from equivbench.training.job import Job
from equivbench.training.loop import Trainer

WARM = 5
"""Steps at the start that are not counted."""


def main() -> None:
    """Print a line for each arm and backend."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("pair", nargs="?", default="forcefield/vector", metavar="PAIR")
    parser.add_argument("--kernels", action="append", default=[])
    parser.add_argument("--forces", default="direct")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = options.kernels or [DEFAULT_KERNELS, "fused"]
    for arm in PAIRS.get(options.pair).contestants:
        if MODELS.get(arm.model).kernels:
            trainers = {name: build_trainer(endless_job(arm.name, name, options)) for name in names}
            show(f"{options.pair} {arm.name}, forces {options.forces}", trainers, options.steps)


def endless_job(arm: str, kernels: str, options: argparse.Namespace) -> Job:
    """That of ``arm`` on the backend ``kernels``, seed 0, its budget far away."""
    return Job(
        pair=options.pair,
        arm=arm,
        request=RunRequest(preset=options.preset),
        budget="1000000steps",
        seed=0,
        run_id="steps",
        state_dir=tempfile.mkdtemp(prefix="equivbench-steps-"),
        kernels=None if kernels == DEFAULT_KERNELS else kernels,
        threads=options.threads,
        variant={} if options.forces is None else {"forces": options.forces},
    )


def show(title: str, trainers: dict[str, Trainer], steps: int) -> None:
    """Make the steps and print what they took."""
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for number in range(WARM + steps):
        order = list(trainers)
        for name in order if number % 2 == 0 else reversed(order):
            seconds[name].append(step(trainers[name]))
    first, *_ = trainers
    weights = dict(trainers[first].arm.model.named_parameters())
    for name, found in seconds.items():
        found, base = found[WARM:], seconds[first][WARM:]
        ratio = statistics.median(one / other for one, other in zip(base, found, strict=True))
        apart = max(
            distance(each, weights[key])
            for key, each in trainers[name].arm.model.named_parameters()
        )
        print(
            f"{title}, {name}: least {1e3 * min(found):.2f} ms,"
            f" median {1e3 * statistics.median(found):.2f} ms,"
            f" {first} over it {ratio:.2f}; weights apart by {apart:.1e}",
            flush=True,
        )


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Relative, of whole tensors."""
    return float((one - other).detach().norm() / other.detach().norm().clamp_min(1e-30))


def step(one: Trainer) -> float:
    """Seconds of the next step, its batch included."""
    clock = one.clock.scratch()
    with contextlib.ExitStack() as stack:
        for each in (one.running(), one.clock.part("timing"), clock.running()):
            stack.enter_context(each)
        begin = time.perf_counter()
        one.step(clock)
        return time.perf_counter() - begin


if __name__ == "__main__":
    keep_memory()
    main()
