"""A training step and an evaluation of each arm of each pair, at the ``dev`` size, through the trainer that ``run`` uses."""

from __future__ import annotations

import tempfile
from functools import cache
from typing import TYPE_CHECKING

import torch

from equivbench.registry import PAIRS
from equivbench.training.assembly import build_trainer
from equivbench.training.job import Job

if TYPE_CHECKING:
    # Not at run time: asv takes every class with a time_... method for a benchmark, and Trainer has time_steps.
    from equivbench.training.trainer import Trainer

ARMS = tuple(f"{name}/{arm.name}" for name, entry in PAIRS.entries().items() for arm in entry.value.contestants)


@cache
def trainer(name: str) -> Trainer:
    """A trainer that has taken its first steps (asv repeats ``setup`` before every sample)."""
    torch.set_num_threads(1)
    pair, _, arm = name.rpartition("/")
    folder = tempfile.mkdtemp(prefix="equivbench-asv-")
    job = Job(
        pair=pair,
        arm=arm,
        preset="dev",
        budget="1000000steps",
        seed=0,
        run_id="dev-seed0",
        created="",
        command="",
        out="",
        state_dir=folder,
    )
    made = build_trainer(job)
    made.time_steps(0.1)
    return made


class TrainingStep:
    """One arm's step, data included, off the budget: the state is put back."""

    version = "1"
    params = ARMS
    param_names = ("arm",)
    timeout = 600

    def setup(self, name: str) -> None:
        """Build once a process."""
        self.trainer = trainer(name)

    def track_seconds_per_sample(self, name: str) -> float:
        """Least seconds a sample over half a second of steps."""
        return float(min(self.trainer.time_steps(0.5)) / self.trainer.arm.recipe.batch_size)

    def time_evaluation(self, name: str) -> None:
        """The share and its floor on the fixed test set."""
        with self.trainer.holding_the_device():
            self.trainer.evaluate(floor=True)


TrainingStep.track_seconds_per_sample.unit = "s"  # type: ignore[attr-defined]
