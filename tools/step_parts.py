"""What a training step takes, and what of it comes after the gradients are there: clipping, the
optimiser, the average of the weights, the watch over divergence.

    python tools/step_parts.py PAIR [--arm NAME ...] [--kernels NAME] [--precision bf16]

Prints for each arm (by default the contestants) the least and the median milliseconds of a step,
the median of each of these, and the part that this is of a step. Each is timed as it is called in
a step, so on a CPU alone: another device goes on by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import msgspec
import torch
from kernel_steps import WARM, endless_job, step

from equivbench.environment import keep_memory
from equivbench.registry import MODELS, PAIRS
from equivbench.request import DEFAULT_KERNELS
from equivbench.training import steps
from equivbench.training.assembly import build_trainer
from equivbench.training.loop import Trainer


def main() -> None:
    """Print a line for each arm and part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("pair", metavar="PAIR")
    parser.add_argument("--arm", action="append", default=[])
    parser.add_argument("--kernels", default=DEFAULT_KERNELS)
    parser.add_argument("--forces", default=None)
    parser.add_argument("--precision", default=None)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pair = PAIRS.get(options.pair)
    for name in options.arm or [arm.name for arm in pair.contestants]:
        show(name, trainer_of(name, options), options.steps)


def trainer_of(arm: str, options: argparse.Namespace) -> Trainer:
    """That of ``arm``, on the backend that was asked for where its model takes one."""
    takes_kernels = MODELS.get(PAIRS.get(options.pair).arm(arm).model).kernels
    job = endless_job(arm, options.kernels if takes_kernels else DEFAULT_KERNELS, options)
    recipe = {} if options.precision is None else {"precision": options.precision}
    return build_trainer(msgspec.structs.replace(job, recipe=recipe))


def show(arm: str, trainer: Trainer, count: int) -> None:
    """Make the steps and print what they took."""
    taken: dict[str, list[float]] = defaultdict(list)

    def timed(part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            found = work(*arguments, **named)
            taken[part].append(time.perf_counter() - began)
            return found

        return run

    parts: list[tuple[str, Any, str]] = [
        ("clipping", steps, "clip_gradients"),
        ("optimiser", trainer.optimizer, "step"),
        ("forgetting gradients", trainer.optimizer, "zero_grad"),
        ("average", trainer.average, "update"),
        ("watch", trainer.watch, "see"),
    ]
    whole = []
    with contextlib.ExitStack() as stack:
        for part, owner, name in parts:
            stack.enter_context(patch.object(owner, name, timed(part, getattr(owner, name))))
        for _ in range(WARM + count):
            whole.append(step(trainer))
    tensors = list(trainer.arm.model.parameters())
    milliseconds = 1e3 * statistics.median(whole[WARM:])
    numbers = sum(each.numel() for each in tensors)
    print(
        f"{arm}: {1e3 * min(whole[WARM:]):.2f} ms, median {milliseconds:.2f} ms, "
        f"{len(tensors)} tensors of {numbers} numbers"
    )
    for part, _, _ in parts:
        spent = 1e3 * statistics.median(taken[part][WARM:])
        print(f"  {part}: {spent:.3f} ms, {spent / milliseconds:.1%}", flush=True)


if __name__ == "__main__":
    keep_memory()
    main()
