"""What the harness adds to a training step: the loop's step against the same step in a bare loop,
in alternation.

    python benchmarks/harness_overhead.py [--pair forcefield/vector] [--arm augmented] [--preset
    small] [--rounds 12]

Each round runs the same batches through both loops, in the order ABBA, and keeps the least seconds
a step of each; the figure is the median over rounds of their ratio. The harness side is
``Trainer.train_slice`` as ``equivbench run`` uses it: clock, random streams, divergence watch,
heartbeat on disk. Checkpoints and evaluations have clock parts of their own.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from equivbench.request import RunRequest
from equivbench.symmetry.rotations import random_rotations
from equivbench.training.assembly import build_trainer
from equivbench.training.clock import Clock
from equivbench.training.data import Order
from equivbench.training.job import Job
from equivbench.training.optim import decay_at

if TYPE_CHECKING:
    # Not at run time: asv takes every class with a time_... method for a benchmark, and Trainer has
    # time_block.
    from equivbench.training.loop import Trainer

STEPS = 4
"""Steps of each loop in half a round."""


def bare_loop(trainer: Trainer, seed: int) -> Callable[[int], None]:
    """A function that makes the step from a position of the sample order on, with nothing round
    it."""
    arm, recipe = trainer.arm, trainer.arm.recipe
    model = copy.deepcopy(arm.module).train()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    averages = [parameter.detach().clone() for parameter in parameters]
    order = Order(seed, len(arm.split))
    generator = torch.Generator().manual_seed(seed)
    clip = float("inf") if recipe.clip_norm is None else recipe.clip_norm

    def step(position: int) -> None:
        batch = arm.split.collate(order.take(position, recipe.batch_size))
        if recipe.augmentation == "haar":
            rotations = random_rotations(
                recipe.batch_size, generator=generator, dtype=torch.float64
            )
            index = None if arm.task.index_field is None else batch[arm.task.index_field]
            batch = arm.task.rotate(batch, rotations, index)
        inputs, targets = arm.task.assemble(batch, arm.task.noise(batch, generator), arm.requires)
        loss = arm.task.objective(model(**inputs), targets, inputs)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(
                averages,
                parameters,  # type: ignore[arg-type]
                1.0 - decay_at(position // recipe.batch_size, recipe.ema),
            )

    return step


class Stamps:
    """Seconds of each pass of a trainer's loop: from the start of a step to the start of the
    next."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self._real = trainer.step
        self._starts: list[float] = []
        self._until = 0
        trainer.step = self._step  # type: ignore[method-assign]

    def _step(self, clock: Clock, rate_factor: float = 1.0) -> None:
        self._starts.append(time.perf_counter())
        if len(self._starts) > self._until:
            self.trainer.stop()
        self._real(clock, rate_factor)

    def run(self, steps: int) -> list[float]:
        """``steps`` passes from the trainer's present position on (one more is run, to see the last
        one end)."""
        self._starts, self._until = [], steps
        self.trainer.train_slice(1e9)
        return [end - start for start, end in zip(self._starts, self._starts[1:], strict=False)]


def compare(trainer: Trainer, rounds: int) -> dict[str, float | list[float]]:
    """Median over ``rounds`` of (least harness step) / (least bare step), and what it was made
    of."""
    bare, harness = bare_loop(trainer, trainer.seed), Stamps(trainer)
    trainer.prepare()

    def run_bare(first: int) -> list[float]:
        times = []
        for number in range(STEPS):
            before = time.perf_counter()
            bare(first + number * trainer.arm.recipe.batch_size)
            times.append(time.perf_counter() - before)
        return times

    def run_harness(first: int) -> list[float]:
        trainer.facts.samples = first
        return harness.run(STEPS)

    ratios, harness_seconds, bare_seconds = [], [], []
    for number in range(rounds + 1):
        first = number * STEPS * trainer.arm.recipe.batch_size
        a1, b1, b2, a2 = run_harness(first), run_bare(first), run_bare(first), run_harness(first)
        if number == 0:  # warm-up
            continue
        harness_seconds.append(min(a1 + a2))
        bare_seconds.append(min(b1 + b2))
        ratios.append(harness_seconds[-1] / bare_seconds[-1])
    return {
        "overhead": statistics.median(ratios) - 1.0,
        "ratios": ratios,
        "harness_seconds": statistics.median(harness_seconds),
        "bare_seconds": statistics.median(bare_seconds),
    }


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pair", default="forcefield/vector")
    parser.add_argument("--arm", default="augmented")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            pair=options.pair,
            arm=options.arm,
            request=RunRequest(preset=options.preset, out=folder),
            budget="1h",
            seed=0,
            run_id="overhead",
            state_dir=str(Path(folder) / "state"),
            threads=options.threads,
            recipe={"compile": False},
        )
        print(json.dumps(compare(build_trainer(job), options.rounds), indent=1))


if __name__ == "__main__":
    main()
