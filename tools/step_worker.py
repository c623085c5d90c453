"""The other end of ``step_times.py``: makes a training step for each line on standard input, and
answers with its seconds, those of processors, and its loss."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from kernel_steps import step

import equivbench
from equivbench.environment import keep_memory
from equivbench.request import DEFAULT_KERNELS, RunRequest
from equivbench.training.assembly import build_trainer
from equivbench.training.job import Job


def main() -> None:
    """Serve until standard input ends."""
    told = json.loads(sys.argv[1])
    torch.set_num_threads(told["threads"])
    kernels, forces = told["kernels"], told["forces"]
    trainer = build_trainer(
        Job(
            pair=told["pair"],
            arm=told["arm"],
            request=RunRequest(preset=told["preset"]),
            budget="1000000steps",
            seed=0,
            run_id="steps",
            state_dir=tempfile.mkdtemp(prefix="equivbench-steps-"),
            kernels=None if kernels == DEFAULT_KERNELS else kernels,
            threads=told["threads"],
            variant={} if forces is None else {"forces": forces},
        )
    )
    say({"package": str(Path(equivbench.__file__).resolve().parent)})
    for _ in sys.stdin:
        began = time.process_time()
        seconds = step(trainer)
        processor = time.process_time() - began
        # Of this step alone, and not the mean over recent ones.
        trainer.watch.recent = None
        problem = trainer.watch.verdict(trainer.facts.step)
        if problem is not None:
            raise SystemExit(problem)
        say({"seconds": seconds, "processor": processor, "loss": trainer.watch.recent})


def say(answer: dict[str, object]) -> None:
    """One line of JSON."""
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    keep_memory()
    main()
