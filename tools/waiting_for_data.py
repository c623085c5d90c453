"""How long training would wait for its batches on a device that takes a few milliseconds a step:
the batches of every arm are made on demand, then read ahead, beside a step that is pretended.

    python tools/waiting_for_data.py [--step 3 --launch 1] [PAIR ...]

Of a step the host is busy for the first ``--launch`` milliseconds (Python that gives the device
its work, and that holds the interpreter's lock), the rest it waits. Prints for each arm how long a
batch takes to make, and what share of the time training waits for its data, on demand and read
ahead. Freed memory is kept, as in a worker process.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from equivbench.environment import keep_memory
from equivbench.execution.executors import find_executor
from equivbench.execution.plan import make_plan
from equivbench.registry import PAIRS
from equivbench.request import RunRequest
from equivbench.training.ahead import BatchesAhead
from equivbench.training.arm import resolve_arm
from equivbench.training.data import Batches


def main() -> None:
    """Print a line for each arm."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("pairs", nargs="*", metavar="PAIR")
    parser.add_argument("--step", type=float, default=3.0, help="milliseconds")
    parser.add_argument("--launch", type=float, default=1.0, help="milliseconds of these")
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pairs = tuple(options.pairs) or tuple(PAIRS.entries())
    plan = find_executor("local").resolve(make_plan(RunRequest(pairs=pairs, device="cpu")))
    for contest in plan.contests:
        for job in contest.jobs:
            declared = resolve_arm(job)
            split = declared.dataset().load().train
            requires = declared.requires(declared.build_model(0))
            about = (declared.task, split, declared.recipe, requires, 0, torch.device("cpu"))
            made, on_demand = waits(Batches(*about), declared.recipe.batch_size, options)
            _, ahead = waits(BatchesAhead(*about), declared.recipe.batch_size, options)
            print(
                f"{job.pair} {job.arm}: a batch of {declared.recipe.batch_size} in "
                f"{1e3 * made:.2f} ms; waits {on_demand:.1%} on demand, {ahead:.1%} read ahead",
                flush=True,
            )


def waits(batches: Batches, count: int, options: argparse.Namespace) -> tuple[float, float]:
    """(median seconds that a batch is waited for, share of the time that all waits are)."""
    for number in range(3):
        batches.at(number * count, count)
    waited = []
    begin = time.perf_counter()
    for number in range(3, 3 + options.steps):
        start = time.perf_counter()
        batches.at(number * count, count)
        waited.append(time.perf_counter() - start)
        end = time.perf_counter() + options.launch / 1e3
        while time.perf_counter() < end:
            pass
        time.sleep(max(0.0, (options.step - options.launch) / 1e3))
    return statistics.median(waited), sum(waited) / (time.perf_counter() - begin)


if __name__ == "__main__":
    keep_memory()
    main()
